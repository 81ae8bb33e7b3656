// Command kstatus says what kstatus thinks of objects: the rules that Flux and other GitOps tools go by.
//
//	kstatus < objects.json
//
// The objects are a JSON list. It prints a list with the status and the message of each.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "kstatus: %v\n", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	var objects []json.RawMessage
	if err := json.NewDecoder(in).Decode(&objects); err != nil {
		return fmt.Errorf("the objects cannot be read: %w", err)
	}
	verdicts := make([]verdict, 0, len(objects))
	for _, text := range objects {
		// By its own decoder, which keeps whole numbers whole.
		var object unstructured.Unstructured
		if err := object.UnmarshalJSON(text); err != nil {
			return err
		}
		result, err := status.Compute(&object)
		if err != nil {
			return fmt.Errorf("%s: %w", object.GetName(), err)
		}
		verdicts = append(verdicts, verdict{result.Status.String(), result.Message})
	}
	return json.NewEncoder(out).Encode(verdicts)
}

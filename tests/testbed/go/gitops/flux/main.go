// Command flux says what the health check of a Kustomization of Flux thinks of objects.
//
//	flux < request.json
//
// The request has the CEL expressions of one entry of healthCheckExprs, and the objects. It prints a list with the status of each.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type request struct {
	Expressions kustomize.HealthCheckExpressions `json:"expressions"`
	Objects     []json.RawMessage                `json:"objects"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "flux: %v\n", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	var request request
	if err := json.NewDecoder(in).Decode(&request); err != nil {
		return fmt.Errorf("the request cannot be read: %w", err)
	}
	evaluator, err := cel.NewStatusEvaluator(&request.Expressions)
	if err != nil {
		return err
	}
	statuses := make([]string, 0, len(request.Objects))
	for _, text := range request.Objects {
		// By its own decoder, which keeps whole numbers whole.
		var object unstructured.Unstructured
		if err := object.UnmarshalJSON(text); err != nil {
			return err
		}
		result, err := evaluator.Evaluate(context.Background(), &object)
		if err != nil {
			return fmt.Errorf("%s: %w", object.GetName(), err)
		}
		statuses = append(statuses, result.Status.String())
	}
	return json.NewEncoder(out).Encode(statuses)
}

// Checks a dashboard on standard input against the types of Grafana: a field or a value that they do not know is an error. Prints the
// titles of the panels.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	plugins.RegisterDefaultPlugins()
	if err := check(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Returns nil for a list of errors without any: the library returns an empty list in place of nil, and then leaves fields unset.
func found(err error) error {
	var list cog.BuildErrors
	if errors.As(err, &list) && len(list) == 0 {
		return nil
	}
	return err
}

func check() error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var strict, read dashboard.Dashboard
	if err := found(strict.UnmarshalJSONStrict(text)); err != nil {
		return err
	}
	if err := json.Unmarshal(text, &read); err != nil {
		return err
	}
	if err := found(read.Validate()); err != nil {
		return err
	}
	for _, panel := range read.Panels {
		if panel.Panel != nil && panel.Panel.Title != nil {
			fmt.Println(*panel.Panel.Title)
		}
		if panel.RowPanel != nil {
			for _, inner := range panel.RowPanel.Panels {
				fmt.Println(*inner.Title)
			}
		}
	}
	return nil
}

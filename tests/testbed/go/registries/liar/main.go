// Command liar is go-containerregistry's in-memory registry, a natural liar about referrers: it lists a manifest's
// config.mediaType as its artifactType, ignores the filter and never answers OCI-Subject.
package main

import (
	"flag"
	"io"
	stdlog "log"

	"github.com/google/go-containerregistry/pkg/registry"

	"affix.dev/testbed/registries/internal/access"
	"affix.dev/testbed/registries/internal/serve"
)

func main() {
	server := serve.Flags(flag.CommandLine)
	guard := access.Flags(flag.CommandLine)
	flag.Parse()

	handler, err := guard.Guard(registry.New(
		registry.WithReferrersSupport(true),
		registry.Logger(stdlog.New(io.Discard, "", 0)),
	))
	if err != nil {
		stdlog.Fatalf("liar: %v", err)
	}
	stdlog.Fatalf("liar: %v", serve.Run(server, handler))
}

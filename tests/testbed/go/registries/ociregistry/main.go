// Command ociregistry is an in-memory registry with the referrers API: cuelabs.dev/go/oci/ociregistry behind flags that imitate
// what other registries do differently. What it holds is gone when it ends.
package main

import (
	"flag"
	"log"
	"net/http"
	"strings"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"

	"affix.dev/testbed/registries/internal/access"
	"affix.dev/testbed/registries/internal/serve"
)

func main() {
	server := serve.Flags(flag.CommandLine)
	guard := access.Flags(flag.CommandLine)
	backend := ocimem.Config{LaxChildReferences: true}
	var options ociserver.Options
	flag.BoolVar(&backend.ImmutableTags, "immutable-tags", false, "refuse to move a tag")
	flag.BoolVar(&options.DisableReferrersAPI, "disable-referrers-api", false, "no referrers listing; a push still answers OCI-Subject, as ECR once did")
	flag.BoolVar(&options.DisableReferrersFiltering, "disable-referrers-filtering", false, "ignore the listing's artifactType filter")
	flag.BoolVar(&options.DisableSinglePostUpload, "disable-single-post-upload", false, "refuse a blob in one POST")
	flag.BoolVar(&options.OmitDigestFromTagGetResponse, "omit-digest-header", false, "no Docker-Content-Digest when a tag is read")
	disableDelete := flag.Bool("disable-delete", false, "answer every DELETE with 405")
	flag.Parse()

	handler := ociserver.New(ocimem.NewWithConfig(&backend), &options)
	if *disableDelete {
		handler = withoutDelete(handler)
	}
	guarded, err := guard.Guard(handler)
	if err != nil {
		log.Fatalf("ociregistry: %v", err)
	}
	log.Fatalf("ociregistry: %v", serve.Run(server, guarded))
}

// withoutDelete refuses to delete content, as distribution does by default; an upload may still be cancelled.
func withoutDelete(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodDelete || strings.Contains(r.URL.Path, "/blobs/uploads/") {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusMethodNotAllowed)
		_, _ = w.Write([]byte(`{"errors":[{"code":"UNSUPPORTED","message":"the operation is unsupported"}]}`))
	})
}

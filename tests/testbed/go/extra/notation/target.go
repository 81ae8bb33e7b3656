package main

import (
	"context"
	"flag"
	"strings"

	"github.com/notaryproject/notation-go/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// target is the image and how to reach it.
type target struct {
	image     string
	basic     string
	plainHTTP bool
}

func targetFlags(fs *flag.FlagSet) *target {
	t := &target{}
	fs.StringVar(&t.basic, "basic", "", "`user:password` for the registry")
	fs.BoolVar(&t.plainHTTP, "plain-http", false, "speak HTTP to the registry")
	return t
}

// open connects to the repository, remembering which signature went through.
func (t *target) open() (*witness, error) {
	repository, err := remote.NewRepository(t.image)
	if err != nil {
		return nil, err
	}
	repository.PlainHTTP = t.plainHTTP
	if user, password, found := strings.Cut(t.basic, ":"); found {
		repository.Client = &auth.Client{Credential: auth.StaticCredential(
			repository.Reference.Host(), auth.Credential{Username: user, Password: password})}
	}
	return &witness{Repository: registry.NewRepository(repository)}, nil
}

// witness remembers the signature that was read or written last: notation stops at the first that verifies.
type witness struct {
	registry.Repository
	last ocispec.Descriptor
}

func (w *witness) FetchSignatureBlob(ctx context.Context, d ocispec.Descriptor) ([]byte, ocispec.Descriptor, error) {
	w.last = d
	return w.Repository.FetchSignatureBlob(ctx, d)
}

func (w *witness) PushSignature(ctx context.Context, mediaType string, blob []byte, subject ocispec.Descriptor,
	annotations map[string]string) (ocispec.Descriptor, ocispec.Descriptor, error) {
	content, manifest, err := w.Repository.PushSignature(ctx, mediaType, blob, subject, annotations)
	w.last = manifest
	return content, manifest, err
}

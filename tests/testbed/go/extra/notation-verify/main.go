// Command notation-verify checks an image's notation signatures with notation-go, at the level strict. Revocation is skipped: a
// test's certificates have no responder.
//
//	notation-verify -trust-root=root.pem [-scope=HOST/REPOSITORY] [-plain-http] [-basic=USER:PASSWORD] HOST/REPOSITORY@DIGEST
//
// The first line of its output is the digest of the signature manifest that verified.
package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	_ "github.com/notaryproject/notation-core-go/signature/cose"
	_ "github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/registry"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// attempts is how many signatures of one image are tried.
const attempts = 50

type options struct {
	root, scope, basic string
	plainHTTP          bool
	image              string
}

func main() {
	var o options
	flag.StringVar(&o.root, "trust-root", "", "PEM `file` of the certificates that are trusted")
	flag.StringVar(&o.scope, "scope", "*", "`HOST/REPOSITORY` that the trust policy covers; * for all")
	flag.StringVar(&o.basic, "basic", "", "`user:password` for the registry")
	flag.BoolVar(&o.plainHTTP, "plain-http", false, "speak HTTP to the registry")
	flag.Parse()
	o.image = flag.Arg(0)
	if err := verify(context.Background(), o); err != nil {
		fmt.Fprintf(os.Stderr, "notation-verify: %v\n", err)
		os.Exit(1)
	}
}

func verify(ctx context.Context, o options) error {
	roots, err := readCertificates(o.root)
	if err != nil {
		return err
	}
	policy := &trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{{
		Name:           "testbed",
		RegistryScopes: []string{o.scope},
		SignatureVerification: trustpolicy.SignatureVerification{
			VerificationLevel: trustpolicy.LevelStrict.Name,
			Override: map[trustpolicy.ValidationType]trustpolicy.ValidationAction{
				trustpolicy.TypeRevocation: trustpolicy.ActionSkip,
			},
		},
		TrustStores:       []string{"ca:testbed"},
		TrustedIdentities: []string{"*"},
	}}}
	checker, err := verifier.New(policy, roots, nil)
	if err != nil {
		return err
	}
	repository, err := remote.NewRepository(o.image)
	if err != nil {
		return err
	}
	repository.PlainHTTP = o.plainHTTP
	if user, password, found := strings.Cut(o.basic, ":"); found {
		repository.Client = &auth.Client{Credential: auth.StaticCredential(
			repository.Reference.Host(), auth.Credential{Username: user, Password: password})}
	}
	seen := &witness{Repository: registry.NewRepository(repository)}
	_, outcomes, err := notation.Verify(ctx, checker, seen, notation.VerifyOptions{
		ArtifactReference:    o.image,
		MaxSignatureAttempts: attempts,
	})
	if err != nil {
		for _, outcome := range outcomes {
			err = errors.Join(err, outcome.Error)
		}
		return err
	}
	fmt.Println(seen.last.Digest)
	return nil
}

// witness remembers the signature that was read last: notation stops at the first that verifies.
type witness struct {
	registry.Repository
	last ocispec.Descriptor
}

func (w *witness) FetchSignatureBlob(ctx context.Context, d ocispec.Descriptor) ([]byte, ocispec.Descriptor, error) {
	w.last = d
	return w.Repository.FetchSignatureBlob(ctx, d)
}

// trusted is a trust store that holds the same certificates under every name.
type trusted []*x509.Certificate

func (t trusted) GetCertificates(context.Context, truststore.Type, string) ([]*x509.Certificate, error) {
	return t, nil
}

func readCertificates(file string) (trusted, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var certificates trusted
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		certificates = append(certificates, certificate)
	}
	if len(certificates) == 0 {
		return nil, fmt.Errorf("%s: no certificate in it", file)
	}
	return certificates, nil
}

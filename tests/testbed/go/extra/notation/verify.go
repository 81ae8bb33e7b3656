package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"

	_ "github.com/notaryproject/notation-core-go/signature/cose"
	_ "github.com/notaryproject/notation-core-go/signature/jws"
	corex509 "github.com/notaryproject/notation-core-go/x509"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
)

// attempts is how many signatures of one image are tried.
const attempts = 50

// verify checks at the level strict. Revocation is skipped: a test's certificates have no responder.
func verify(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("verify", flag.ExitOnError)
	root := fs.String("trust-root", "", "PEM `file` of the certificates that are trusted")
	scope := fs.String("scope", "*", "`HOST/REPOSITORY` that the trust policy covers; * for all")
	image := targetFlags(fs)
	_ = fs.Parse(args)
	image.image = fs.Arg(0)

	roots, err := corex509.ReadCertificateFile(*root)
	if err != nil {
		return err
	}
	checker, err := verifier.New(policy(*scope), trusted(roots), nil)
	if err != nil {
		return err
	}
	repository, err := image.open()
	if err != nil {
		return err
	}
	_, outcomes, err := notation.Verify(ctx, checker, repository, notation.VerifyOptions{
		ArtifactReference:    image.image,
		MaxSignatureAttempts: attempts,
	})
	if err != nil {
		for _, outcome := range outcomes {
			err = errors.Join(err, outcome.Error)
		}
		return err
	}
	fmt.Println(repository.last.Digest)
	return nil
}

func policy(scope string) *trustpolicy.Document {
	return &trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{{
		Name:           "testbed",
		RegistryScopes: []string{scope},
		SignatureVerification: trustpolicy.SignatureVerification{
			VerificationLevel: trustpolicy.LevelStrict.Name,
			Override: map[trustpolicy.ValidationType]trustpolicy.ValidationAction{
				trustpolicy.TypeRevocation: trustpolicy.ActionSkip,
			},
		},
		TrustStores:       []string{"ca:testbed"},
		TrustedIdentities: []string{"*"},
	}}}
}

// trusted is a trust store that holds the same certificates under every name.
type trusted []*x509.Certificate

func (t trusted) GetCertificates(context.Context, truststore.Type, string) ([]*x509.Certificate, error) {
	return t, nil
}

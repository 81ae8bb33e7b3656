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
	authorities := fs.String("tsa-root", "", "PEM `file` of the certificates of timestamp authorities; each signature needs a timestamp then")
	scope := fs.String("scope", "*", "`HOST/REPOSITORY` that the trust policy covers; * for all")
	image := targetFlags(fs)
	_ = fs.Parse(args)
	image.image = fs.Arg(0)

	roots, err := corex509.ReadCertificateFile(*root)
	if err != nil {
		return err
	}
	trusted := trusted{truststore.TypeCA: roots}
	if *authorities != "" {
		if trusted[truststore.TypeTSA], err = corex509.ReadCertificateFile(*authorities); err != nil {
			return err
		}
	}
	checker, err := verifier.New(policy(*scope, trusted), trusted, nil)
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

func policy(scope string, stores trusted) *trustpolicy.Document {
	verification := trustpolicy.SignatureVerification{
		VerificationLevel: trustpolicy.LevelStrict.Name,
		Override: map[trustpolicy.ValidationType]trustpolicy.ValidationAction{
			trustpolicy.TypeRevocation: trustpolicy.ActionSkip,
		},
	}
	var names []string
	for kind := range stores {
		names = append(names, string(kind)+":testbed")
	}
	if _, ok := stores[truststore.TypeTSA]; ok {
		verification.VerifyTimestamp = trustpolicy.OptionAlways
	}
	return &trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{{
		Name:                  "testbed",
		RegistryScopes:        []string{scope},
		SignatureVerification: verification,
		TrustStores:           names,
		TrustedIdentities:     []string{"*"},
	}}}
}

// trusted has the certificates of each type of trust store, under every name.
type trusted map[truststore.Type][]*x509.Certificate

func (t trusted) GetCertificates(_ context.Context, kind truststore.Type, _ string) ([]*x509.Certificate, error) {
	return t[kind], nil
}

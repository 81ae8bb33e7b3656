package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/signer"
)

func sign(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("sign", flag.ExitOnError)
	key := fs.String("key", "", "PEM `file` of the private key")
	chain := fs.String("chain", "", "PEM `file` of the certificates, from the leaf to the root")
	expiry := fs.Duration("expiry", 0, "how long the signature is valid; 0 for ever")
	image := targetFlags(fs)
	_ = fs.Parse(args)
	image.image = fs.Arg(0)

	from, err := signer.NewGenericSignerFromFiles(*key, *chain)
	if err != nil {
		return err
	}
	repository, err := image.open()
	if err != nil {
		return err
	}
	if _, err := notation.Sign(ctx, from, repository, notation.SignOptions{
		ArtifactReference: image.image,
		SignerSignOptions: notation.SignerSignOptions{SignatureMediaType: jws.MediaTypeEnvelope, ExpiryDuration: *expiry},
	}); err != nil {
		return err
	}
	fmt.Println(repository.last.Digest)
	return nil
}

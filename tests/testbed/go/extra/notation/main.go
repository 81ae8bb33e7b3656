// Command notation signs and verifies images with notation-go: the notation command line is not available as a module.
//
//	notation sign -key=leaf.key -chain=chain.pem [-plain-http] [-basic=USER:PASSWORD] HOST/REPOSITORY@DIGEST
//	notation verify -trust-root=root.pem [-tsa-root=tsa.pem] [-scope=HOST/REPOSITORY] [-plain-http] [-basic=USER:PASSWORD] HOST/REPOSITORY@DIGEST
//
// Both print the digest of the signature's manifest: the one that was pushed, or the one that verified.
package main

import (
	"context"
	"fmt"
	"os"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "notation: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("say `sign` or `verify`")
	}
	switch args[0] {
	case "sign":
		return sign(ctx, args[1:])
	case "verify":
		return verify(ctx, args[1:])
	default:
		return fmt.Errorf("say `sign` or `verify`, not %q", args[0])
	}
}

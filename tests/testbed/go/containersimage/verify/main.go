// Command verify judges an image by a policy.json, with the library that podman, skopeo, CRI-O and OpenShift use for it.
//
//	verify -policy=policy.json -registries-d=DIRECTORY [-authfile=FILE] [-instance=DIGEST] [-plain-http] HOST/REPOSITORY:TAG
//
// A pull of a multi-platform image judges the manifest of the platform under the reference that was pulled: -instance names its
// digest. Without -instance the manifest that the reference names is judged, an index too, as `skopeo copy --all` does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

func main() {
	policy := flag.String("policy", "", "`file` of the policy")
	registries := flag.String("registries-d", "", "`directory` of the configuration of signature storage")
	instance := flag.String("instance", "", "`digest` of one manifest of the image")
	logins := flag.String("authfile", "", "`file` of the logins")
	plainHTTP := flag.Bool("plain-http", false, "speak HTTP to the registry")
	flag.Parse()
	system := &types.SystemContext{
		RegistriesDirPath:           *registries,
		AuthFilePath:                *logins,
		DockerInsecureSkipTLSVerify: types.NewOptionalBool(*plainHTTP),
	}
	if err := verify(context.Background(), system, *policy, flag.Arg(0), *instance); err != nil {
		fmt.Fprintf(os.Stderr, "verify: %v\n", err)
		os.Exit(1)
	}
}

func verify(ctx context.Context, system *types.SystemContext, file, name, instance string) (err error) {
	policy, err := signature.NewPolicyFromFile(file)
	if err != nil {
		return err
	}
	judge, err := signature.NewPolicyContext(policy)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, judge.Destroy()) }()
	reference, err := docker.ParseReference("//" + name)
	if err != nil {
		return err
	}
	source, err := reference.NewImageSource(ctx, system)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	var of *digest.Digest
	if instance != "" {
		parsed, err := digest.Parse(instance)
		if err != nil {
			return err
		}
		of = &parsed
	}
	allowed, err := judge.IsRunningImageAllowed(ctx, image.UnparsedInstance(source, of))
	if err == nil && !allowed {
		err = errors.New("the policy refuses the image without a reason")
	}
	return err
}

// Command tokens is a token server for registries: it issues signed tokens to the users of a file, as the distribution
// specification's token authentication describes, and grants of a scope only what the user may do.
//
//	tokens -users=users.json -key=key.json -jwks=jwks.json
//
// The users file is a list; a user with an empty name is anybody:
//
//	[{"name":"alice","password":"…","identityToken":"…","repositories":[{"name":"team/*","actions":["pull","push","delete"]}]}]
package main

import (
	"flag"
	"log"
	"time"

	"affix.dev/testbed/registries/internal/serve"
)

func main() {
	server := serve.Flags(flag.CommandLine)
	users := flag.String("users", "", "`file` of the users, JSON")
	key := flag.String("key", "", "`file` of the private key, made where absent")
	jwks := flag.String("jwks", "", "`file` to which the public key is written")
	issuer := flag.String("issuer", "testbed", "`name` of this server in its tokens")
	lifetime := flag.Duration("lifetime", 5*time.Minute, "how long a token is valid")
	flag.Parse()

	signer, err := openKey(*key, *jwks)
	if err != nil {
		log.Fatalf("tokens: %v", err)
	}
	directory, err := readUsers(*users)
	if err != nil {
		log.Fatalf("tokens: %v", err)
	}
	handler := &issuing{signer: signer, users: directory, issuer: *issuer, lifetime: *lifetime}
	log.Fatalf("tokens: %v", serve.Run(server, handler))
}

// The timestamp authority without its server of metrics, whose port cannot be chosen, so that several run on one machine. Its key is
// in memory, and is another one after each start.
package main

import (
	"flag"
	"log"
	"time"

	"github.com/sigstore/timestamp-authority/v2/pkg/server"
	"github.com/spf13/viper"
)

func main() {
	port := flag.Int("port", 0, "the port of the loopback address to listen on")
	flag.Parse()
	viper.Set("timestamp-signer", "memory")
	viper.Set("timestamp-signer-hash", "sha256")
	viper.Set("enforce-intermediate-eku", true)
	// Verifiers of notation have the root only. cosign asks for no certificates.
	viper.Set("include-chain-in-response", true)
	viper.Set("default-policy-oid", "1.3.6.1.4.1.57264.2")
	viper.Set("accepted-policy-oids", []string{"1.3.6.1.4.1.57264.2"})
	timeout := 30 * time.Second
	authority := server.NewRestAPIServer("127.0.0.1", *port, []string{"http"}, false, timeout, timeout)
	if err := authority.Serve(); err != nil {
		log.Fatal(err)
	}
}

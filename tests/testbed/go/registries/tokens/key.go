package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/go-jose/go-jose/v4"
)

// openKey reads the private key, or makes it, and writes its public half for the registries to trust.
func openKey(path, jwks string) (jose.Signer, error) {
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(path)
	}
	if err != nil {
		return nil, err
	}
	public, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(jwks, public, 0o600); err != nil {
		return nil, err
	}
	return jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
}

func readKey(path string) (*jose.JSONWebKey, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key := &jose.JSONWebKey{}
	if err := json.Unmarshal(raw, key); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func makeKey(path string) (*jose.JSONWebKey, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key := &jose.JSONWebKey{Key: private, KeyID: rand.Text(), Algorithm: string(jose.ES256), Use: "sig"}
	raw, err := json.Marshal(key)
	if err != nil {
		return nil, err
	}
	return key, os.WriteFile(path, raw, 0o600)
}

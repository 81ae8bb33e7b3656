// Package access guards a registry handler that has no authentication of its own: with one user's name and password, or with
// bearer tokens as the distribution specification's token authentication has them.
package access

import (
	"crypto/subtle"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Grant is one entry of a token's `access` claim.
type Grant struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// Claims are what a registry token says.
type Claims struct {
	jwt.Claims
	Access []Grant `json:"access"`
}

// Options are the flags that choose the guard.
type Options struct {
	Basic   string
	Realm   string
	Service string
	JWKS    string
}

// Flags declares the guard's flags.
func Flags(fs *flag.FlagSet) *Options {
	o := &Options{}
	fs.StringVar(&o.Basic, "basic", "", "`user:password` that every request must carry")
	fs.StringVar(&o.Realm, "token-realm", "", "`URL` of the token server; with it, every request must carry a token")
	fs.StringVar(&o.Service, "token-service", "registry", "`name` of this registry in tokens")
	fs.StringVar(&o.JWKS, "token-jwks", "", "`file` with the token server's public keys")
	return o
}

// Guard wraps next with what the options ask for.
func (o *Options) Guard(next http.Handler) (http.Handler, error) {
	switch {
	case o.Basic != "" && o.Realm != "":
		return nil, fmt.Errorf("-basic and -token-realm exclude each other")
	case o.Basic != "":
		return o.basic(next), nil
	case o.Realm != "":
		return o.bearer(next)
	default:
		return next, nil
	}
}

func (o *Options) basic(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if subtle.ConstantTimeCompare([]byte(user+":"+password), []byte(o.Basic)) != 1 {
			refuse(w, fmt.Sprintf("Basic realm=%q", o.Service))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (o *Options) bearer(next http.Handler) (http.Handler, error) {
	raw, err := os.ReadFile(o.JWKS)
	if err != nil {
		return nil, err
	}
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(raw, &keys); err != nil {
		return nil, fmt.Errorf("%s: %w", o.JWKS, err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		repository, actions := needed(r)
		challenge := fmt.Sprintf("Bearer realm=%q,service=%q", o.Realm, o.Service)
		if repository != "" {
			challenge += fmt.Sprintf(",scope=\"repository:%s:%s\"", repository, strings.Join(actions, ","))
		}
		raw, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !found {
			refuse(w, challenge)
			return
		}
		claims, err := o.verify(raw, &keys)
		if err != nil {
			refuse(w, challenge+`,error="invalid_token"`)
			return
		}
		if repository != "" && !claims.allows(repository, actions) {
			refuse(w, challenge+`,error="insufficient_scope"`)
			return
		}
		next.ServeHTTP(w, r)
	}), nil
}

// verify checks signature, audience and expiry, the latter without leeway: a token that is over is over.
func (o *Options) verify(raw string, keys *jose.JSONWebKeySet) (*Claims, error) {
	token, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, err
	}
	claims := &Claims{}
	if err := token.Claims(keys, claims); err != nil {
		return nil, err
	}
	return claims, claims.ValidateWithLeeway(jwt.Expected{AnyAudience: jwt.Audience{o.Service}, Time: time.Now()}, 0)
}

func (c *Claims) allows(repository string, actions []string) bool {
	for _, action := range actions {
		if !slices.ContainsFunc(c.Access, func(g Grant) bool {
			return g.Type == "repository" && g.Name == repository && slices.Contains(g.Actions, action)
		}) {
			return false
		}
	}
	return true
}

// needed says what a request asks of which repository; "" for requests about none.
func needed(r *http.Request) (repository string, actions []string) {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	for _, part := range []string{"/manifests/", "/blobs/", "/referrers/", "/tags/"} {
		if i := strings.LastIndex(path, part); i > 0 {
			repository = path[:i]
			break
		}
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return repository, []string{"pull"}
	case http.MethodDelete:
		return repository, []string{"delete"}
	default:
		return repository, []string{"pull", "push"}
	}
}

func refuse(w http.ResponseWriter, challenge string) {
	w.Header().Set("WWW-Authenticate", challenge)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	fmt.Fprintln(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
}

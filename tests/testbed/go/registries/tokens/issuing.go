package main

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"affix.dev/testbed/registries/internal/access"
)

// issuing answers token requests: GET with basic authentication or without any, and the POST of OAuth2 with a password or with
// an identity token.
type issuing struct {
	signer   jose.Signer
	users    []user
	issuer   string
	lifetime time.Duration
}

func (i *issuing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	who := i.authenticate(r)
	if who == nil {
		refuse(w, http.StatusUnauthorized, "the credentials are not valid")
		return
	}
	// GET repeats the parameter, OAuth2 separates scopes by spaces.
	scopes := strings.Fields(strings.Join(r.Form["scope"], " "))
	now := time.Now()
	token, err := jwt.Signed(i.signer).Claims(access.Claims{
		Claims: jwt.Claims{
			Issuer:   i.issuer,
			Subject:  who.Name,
			Audience: jwt.Audience{r.Form.Get("service")},
			Expiry:   jwt.NewNumericDate(now.Add(i.lifetime)),
			IssuedAt: jwt.NewNumericDate(now),
			ID:       rand.Text(),
		},
		Access: who.grants(scopes),
	}).Serialize()
	if err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	answer := map[string]any{
		"access_token": token,
		"expires_in":   int(i.lifetime.Seconds()),
		"issued_at":    now.UTC().Format(time.RFC3339),
	}
	if r.Method == http.MethodGet {
		answer["token"] = token
	} else if who.IdentityToken != "" {
		answer["refresh_token"] = who.IdentityToken
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// authenticate finds who asks; nil where the credentials are wrong or anybody may not ask.
func (i *issuing) authenticate(r *http.Request) *user {
	name, password, _ := r.BasicAuth()
	identity := ""
	if r.Method == http.MethodPost {
		name, password, identity = r.Form.Get("username"), r.Form.Get("password"), r.Form.Get("refresh_token")
	}
	found := slices.IndexFunc(i.users, func(u user) bool {
		if identity != "" {
			return u.IdentityToken == identity
		}
		return u.Name == name && u.Password == password
	})
	if found < 0 {
		return nil
	}
	return &i.users[found]
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"errors": []map[string]string{{"code": "UNAUTHORIZED", "message": message}},
	})
}

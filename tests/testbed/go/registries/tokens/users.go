package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"affix.dev/testbed/registries/internal/access"
)

// user is somebody who may ask for tokens. One without a name stands for requests without credentials.
type user struct {
	Name          string       `json:"name"`
	Password      string       `json:"password"`
	IdentityToken string       `json:"identityToken"`
	Repositories  []permission `json:"repositories"`
}

// permission is what a user may do; Name is a pattern of path.Match, in which `*` stays within one segment, or `**` for all.
type permission struct {
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

func readUsers(file string) ([]user, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var users []user
	if err := json.Unmarshal(raw, &users); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return users, nil
}

// grants answers the scopes that were asked for with the part of them that the user has. Scopes that make no sense are dropped,
// as real token servers do: the registry then refuses.
func (u *user) grants(scopes []string) []access.Grant {
	grants := []access.Grant{}
	for _, scope := range scopes {
		kind, rest, _ := strings.Cut(scope, ":")
		end := strings.LastIndex(rest, ":")
		if kind != "repository" || end < 0 {
			continue
		}
		name := rest[:end]
		var actions []string
		for _, action := range strings.Split(rest[end+1:], ",") {
			if u.may(action, name) {
				actions = append(actions, action)
			}
		}
		if len(actions) > 0 {
			grants = append(grants, access.Grant{Type: kind, Name: name, Actions: actions})
		}
	}
	return grants
}

func (u *user) may(action, repository string) bool {
	return slices.ContainsFunc(u.Repositories, func(p permission) bool {
		matches, err := path.Match(p.Name, repository)
		return err == nil && (matches || p.Name == "**") && slices.Contains(p.Actions, action)
	})
}

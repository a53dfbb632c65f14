package docker

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/moby/moby/api/types/registry"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// maxAuth bounds a header with credentials; tokens of a few KiB occur.
const maxAuth = 64 << 10

// decodeAuth reads X-Registry-Auth: JSON in base64. No credentials are nil.
func decodeAuth(values []string) (*registry.AuthConfig, error) {
	var a registry.AuthConfig
	if err := decodeSecret("X-Registry-Auth", values, &a); err != nil {
		return nil, err
	}
	if a == (registry.AuthConfig{ServerAddress: a.ServerAddress}) {
		return nil, nil
	}
	return &a, nil
}

// decodeAuths reads X-Registry-Config: credentials by registry, for what may need several.
func decodeAuths(values []string) (all map[string]registry.AuthConfig, err error) {
	return all, decodeSecret("X-Registry-Config", values, &all)
}

// decodeSecret reads a header of JSON in base64, of either alphabet, padded or not. Errors never repeat the header.
func decodeSecret(name string, values []string, into any) error {
	if len(values) > 1 {
		return errdef.New(errdef.InvalidArgument, "invalid %s header: it appears %d times", name, len(values))
	}
	if len(values) == 0 || values[0] == "" {
		return nil
	}
	if len(values[0]) > maxAuth {
		return errdef.New(errdef.InvalidArgument, "invalid %s header: longer than %d bytes", name, maxAuth)
	}
	s := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(values[0], "="))
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "invalid %s header: not base64", name)
	}
	if err := checkDepth(b, 8); err != nil {
		return errdef.New(errdef.InvalidArgument, "invalid %s header: %w", name, err)
	}
	if json.Unmarshal(b, into) != nil {
		return errdef.New(errdef.InvalidArgument, "invalid %s header: not the JSON of credentials", name)
	}
	return nil
}

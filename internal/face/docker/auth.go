package docker

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/moby/moby/api/types/registry"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// maxAuth bounds the X-Registry-Auth header; tokens of a few KiB occur.
const maxAuth = 64 << 10

// decodeAuth reads X-Registry-Auth: JSON in base64, of either alphabet, padded or not. No credentials are nil. Errors never
// repeat the header.
func decodeAuth(values []string) (*registry.AuthConfig, error) {
	if len(values) > 1 {
		return nil, errdef.New(errdef.InvalidArgument, "invalid X-Registry-Auth header: it appears %d times", len(values))
	}
	if len(values) == 0 || values[0] == "" {
		return nil, nil
	}
	if len(values[0]) > maxAuth {
		return nil, errdef.New(errdef.InvalidArgument, "invalid X-Registry-Auth header: longer than %d bytes", maxAuth)
	}
	s := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(values[0], "="))
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil, errdef.New(errdef.InvalidArgument, "invalid X-Registry-Auth header: not base64")
	}
	if err := checkDepth(b, 8); err != nil {
		return nil, errdef.New(errdef.InvalidArgument, "invalid X-Registry-Auth header: %w", err)
	}
	var a registry.AuthConfig
	if json.Unmarshal(b, &a) != nil {
		return nil, errdef.New(errdef.InvalidArgument, "invalid X-Registry-Auth header: not the JSON of credentials")
	}
	if a == (registry.AuthConfig{ServerAddress: a.ServerAddress}) {
		return nil, nil
	}
	return &a, nil
}

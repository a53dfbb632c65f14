package docker

import (
	"errors"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// The API versions spoken. 1.52 is where the shapes of the moby/api types in use begin; nothing that 1.53 to 1.56 added is
// offered, so no client is told of it. 1.24 is the oldest version that clients in the field still pin.
const (
	minMinor = 24
	maxMinor = 52
)

func apiVersion(minor int) string { return "1." + strconv.Itoa(minor) }

// oldClient is an error for a client so old that it expects plain text.
type oldClient struct{ text string }

func (e *oldClient) Error() string { return e.text }

func plainError(err error) (string, bool) {
	var o *oldClient
	if errors.As(err, &o) {
		return o.text, true
	}
	return "", false
}

// negotiate takes a leading v1.N off the path and remembers it.
func (c *call) negotiate(segs []string) ([]string, error) {
	major, minor, ok := parseVersion(segs[0])
	if !ok {
		return segs, nil
	}
	v := strconv.Itoa(major) + "." + strconv.Itoa(minor)
	if major < 1 || major == 1 && minor < minMinor {
		return nil, errdef.As(errdef.InvalidArgument, &oldClient{"client version " + v + " is too old. Minimum supported API version is " +
			apiVersion(minMinor) + ", please upgrade your client to a newer version"})
	}
	if major > 1 || minor > maxMinor {
		return nil, errdef.New(errdef.InvalidArgument, "client version %s is too new. Maximum supported API version is %s", v, apiVersion(maxMinor))
	}
	c.minor = minor
	return segs[1:], nil
}

// parseVersion reads v<major>.<minor>.
func parseVersion(seg string) (major, minor int, ok bool) {
	a, b, found := strings.Cut(strings.TrimPrefix(seg, "v"), ".")
	if !found || !strings.HasPrefix(seg, "v") || !digits(a) || !digits(b) {
		return 0, 0, false
	}
	major, _ = strconv.Atoi(a)
	minor, _ = strconv.Atoi(b)
	return major, minor, true
}

// digits reports whether s is a short number without sign.
func digits(s string) bool {
	if s == "" || len(s) > 4 {
		return false
	}
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
	}
	return true
}

package tree

import (
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Clean brings a path from a tar into its plain form: no leading slash, no "." and no ".."; "" is the root. A path that climbs
// above the root, holds a NUL byte or exceeds the kernel's limits is refused.
func Clean(p string) (string, error) { return CleanMarked(p, "") }

// CleanMarked is Clean for a path whose names may begin with a mark, which does not count: what it marks has to be a name of the kernel's.
func CleanMarked(p, mark string) (string, error) {
	if strings.IndexByte(p, 0) >= 0 {
		return "", errdef.New(errdef.InvalidArgument, "path %.100q holds a NUL byte", p)
	}
	most := MaxPath
	if mark != "" && strings.HasPrefix(p[strings.LastIndexByte(p, '/')+1:], mark) {
		most += len(mark)
	}
	if len(p) > most {
		return "", errdef.New(errdef.InvalidArgument, "path %.60q... is longer than %d bytes", p, MaxPath)
	}
	if plain(p, mark) {
		return p, nil
	}
	var out []string
	for _, c := range strings.Split(p, "/") {
		switch {
		case c == "" || c == ".":
		case c == "..":
			if len(out) == 0 {
				return "", errdef.New(errdef.InvalidArgument, "path %.100q leads out of the layer", p)
			}
			out = out[:len(out)-1]
		case tooLong(c, mark):
			return "", errdef.New(errdef.InvalidArgument, "path %.60q...: a name is longer than %d bytes", p, MaxName)
		default:
			out = append(out, c)
		}
	}
	return strings.Join(out, "/"), nil
}

func tooLong(name, mark string) bool { return len(strings.TrimPrefix(name, mark)) > MaxName }

// plain reports whether CleanMarked(p, mark) is p, without allocating.
func plain(p, mark string) bool {
	for p != "" {
		c, rest, more := strings.Cut(p, "/")
		if c == "" || c == "." || c == ".." || tooLong(c, mark) || more && rest == "" {
			return false
		}
		p = rest
	}
	return true
}

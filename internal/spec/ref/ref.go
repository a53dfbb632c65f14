// Package ref owns how an image is named: registry, repository, tag and digest.
//
// It promises that a parsed Ref is normalised (docker.io and library/ filled in, latest where nothing is said), that its parts
// hold no byte outside the grammar of distribution/reference, and that a Digest is sha256 with 64 lower-case digits.
// It must never look anything up.
package ref

import (
	_ "crypto/sha256" // go-digest can only use hashes that somebody links
	"errors"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// DefaultTag is the tag meant when a name carries neither tag nor digest.
const DefaultTag = "latest"

// maxLen bounds what is handed to the grammar: 255 of name, 128 of tag, 71 of digest and their separators fit.
const maxLen = 512

// Ref is a normalised image reference. At least one of Tag and Digest is set.
type Ref struct {
	Domain string // "docker.io", "127.0.0.1:5000"
	Path   string // "library/busybox"
	Tag    string // "" when only a digest was given
	Digest digest.Digest
}

// Parse normalises s. The error is errdef.InvalidArgument and quotes s.
func Parse(s string) (Ref, error) {
	if len(s) > maxLen {
		return Ref{}, errdef.New(errdef.InvalidArgument, "invalid reference format: longer than %d bytes", maxLen)
	}
	n, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		if errors.Is(err, reference.ErrReferenceInvalidFormat) && err.Error() == reference.ErrReferenceInvalidFormat.Error() {
			return Ref{}, errdef.New(errdef.InvalidArgument, "invalid reference format: %q", s)
		}
		return Ref{}, errdef.New(errdef.InvalidArgument, "invalid reference format: %q: %v", s, bare(err))
	}
	r := Ref{Domain: reference.Domain(n), Path: reference.Path(n)}
	if t, ok := n.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := n.(reference.Digested); ok {
		if r.Digest, err = ParseDigest(d.Digest().String()); err != nil {
			return Ref{}, err
		}
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = DefaultTag
	}
	return r, nil
}

// bare drops the prefix that the grammar's own errors repeat.
func bare(err error) string {
	return strings.TrimPrefix(err.Error(), "invalid reference format: ")
}

// ParseDigest accepts sha256:<64 lower-case hex digits> and nothing else.
func ParseDigest(s string) (digest.Digest, error) {
	hex, ok := strings.CutPrefix(s, "sha256:")
	if !ok || !IsHex(hex) || len(hex) != 64 {
		if len(s) > 100 {
			s = s[:100]
		}
		return "", errdef.New(errdef.InvalidArgument, "invalid digest %q: want sha256: and 64 lower-case hexadecimal digits", s)
	}
	return digest.Digest(s), nil
}

// IsHex reports whether s is made of lower-case hexadecimal digits only and is not empty.
func IsHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

// Name is registry and repository: docker.io/library/busybox.
func (r Ref) Name() string { return r.Domain + "/" + r.Path }

// String is the canonical form with everything that is known: docker.io/library/busybox:latest@sha256:...
func (r Ref) String() string { return r.Name() + r.suffix() }

// Familiar is what a user reads and types: busybox:latest.
func (r Ref) Familiar() string { return r.FamiliarName() + r.suffix() }

// FamiliarName is the name as a user types it: busybox, bitnami/redis, 127.0.0.1:5000/app.
func (r Ref) FamiliarName() string {
	if r.Domain != "docker.io" {
		return r.Name()
	}
	return strings.TrimPrefix(r.Path, "library/")
}

func (r Ref) suffix() string {
	var s string
	if r.Tag != "" {
		s = ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// WithDigest is r pinned to d, without a tag.
func (r Ref) WithDigest(d digest.Digest) Ref { return Ref{Domain: r.Domain, Path: r.Path, Digest: d} }

// WithTag is r at a tag, without a digest.
func (r Ref) WithTag(tag string) Ref { return Ref{Domain: r.Domain, Path: r.Path, Tag: tag} }

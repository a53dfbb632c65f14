package manifest

import (
	"runtime"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// HostPlatform is what this program was built for: containers share its kernel and processor.
func HostPlatform() ocispec.Platform {
	return normal(ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH})
}

// ParsePlatform reads os, arch, os/arch or os/arch/variant; what is missing is filled in from host. "" is host.
func ParsePlatform(s string, host ocispec.Platform) (ocispec.Platform, error) {
	if s == "" {
		return host, nil
	}
	parts := strings.Split(strings.ToLower(s), "/")
	for _, p := range parts {
		if len(parts) > 3 || !plain(p) {
			return ocispec.Platform{}, errdef.New(errdef.InvalidArgument, "invalid platform %q: want OS/ARCH or OS/ARCH/VARIANT, such as linux/arm64", clip(s))
		}
	}
	p := ocispec.Platform{OS: parts[0], Architecture: host.Architecture, Variant: host.Variant}
	switch {
	case len(parts) == 1 && parts[0] != "linux" && parts[0] != "windows" && parts[0] != "freebsd":
		p = ocispec.Platform{OS: host.OS, Architecture: parts[0]}
	case len(parts) == 2:
		p = ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	case len(parts) == 3:
		p = ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	}
	return normal(p), nil
}

func plain(s string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return s != ""
}

// normal rewrites the spellings that mean the same processor.
func normal(p ocispec.Platform) ocispec.Platform {
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "i386", "i486", "i586", "i686":
		p.Architecture = "386"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	switch {
	case p.Architecture == "arm64" && (p.Variant == "v8" || p.Variant == "8"):
		p.Variant = ""
	case p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	case p.Architecture == "arm" && len(p.Variant) == 1:
		p.Variant = "v" + p.Variant
	}
	return p
}

// PlatformString is os/arch[/variant].
func PlatformString(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// Exact is Match's answer for the same platform.
const Exact = 10

// Match rates how well a program for have runs where want is asked: 0 not at all, higher is better.
func Match(have, want ocispec.Platform) int {
	have, want = normal(have), normal(want)
	if have.OS != want.OS || have.Architecture != want.Architecture {
		return 0
	}
	if have.Variant == want.Variant {
		return Exact
	}
	switch {
	case want.Architecture == "arm" && have.Variant < want.Variant: // v7 runs v6 and v5
		return 1 + int(have.Variant[len(have.Variant)-1]-'0')
	case want.Architecture == "amd64" && have.Variant == "", want.Architecture == "arm64" && have.Variant == "":
		return 5
	}
	return 0
}

// Select picks the entry of an index for a platform: a nested index is returned only when no manifest fits. Attestations
// (platform unknown/unknown) are never picked. errdef.NotFound lists what there is.
func Select(ix *ocispec.Index, want ocispec.Platform) (ocispec.Descriptor, error) {
	best, rate := ocispec.Descriptor{}, 0
	var offered []string
	for _, d := range ix.Manifests {
		index, known := kind(d.MediaType)
		switch {
		case !known:
		case d.Platform != nil:
			if r := Match(*d.Platform, want); r > rate && !index {
				best, rate = d, r
			}
			offered = append(offered, clip(PlatformString(*d.Platform)))
		case rate == 0 && best.Digest == "":
			best = d // a manifest or index that does not say: look inside when nothing else fits
		}
	}
	if best.Digest == "" {
		if len(offered) > 16 {
			offered = append(offered[:16], "...")
		}
		return best, errdef.New(errdef.NotFound, "no matching manifest for %s in the manifest list entries: it offers %q", PlatformString(want), offered)
	}
	return best, nil
}

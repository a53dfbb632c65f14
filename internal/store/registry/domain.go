package registry

import (
	"net/url"
	"strings"
)

// Domain turns a server address as docker's config.json and API write it (https://index.docker.io/v1/, ghcr.io, localhost:5000)
// into the domain of a reference, so that the two can be compared. "" stays "".
func Domain(serverAddress string) string {
	s := strings.TrimSpace(serverAddress)
	if strings.Contains(s, "://") {
		if u, err := url.Parse(s); err == nil {
			s = u.Host
		}
	}
	s, _, _ = strings.Cut(s, "/")
	switch s = strings.ToLower(s); s {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io"
	}
	return s
}

// For returns a when it belongs to the registry of domain, else nil: credentials stored for one host are never offered to
// another. serverAddress is what they were stored under; "" means that the caller chose them for this very request.
func (a *Auth) For(domain, serverAddress string) *Auth {
	if stored := Domain(serverAddress); stored != "" && stored != strings.ToLower(domain) {
		return nil
	}
	return a
}

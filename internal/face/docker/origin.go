package docker

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// checkOrigin keeps web pages out on TCP: a Host that is a foreign name is DNS rebinding, an Origin is a page. A unix socket
// cannot be reached by a page, and clients put anything into its Host.
func (s *server) checkOrigin(r *http.Request) error {
	if _, tcp := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); !tcp {
		return nil
	}
	if o := r.Header.Values("Origin"); len(o) > 0 {
		return errdef.New(errdef.Forbidden, "requests from web pages are refused (Origin: %q)", o[0])
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || host == "localhost" || slices.Contains(s.hosts, host) {
		return nil
	}
	return errdef.New(errdef.Forbidden, "unknown Host %q: use localhost, an IP address or a configured name", r.Host)
}

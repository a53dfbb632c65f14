package explain

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// listener is a socket that waits for others.
type listener struct {
	proto string
	at    netip.AddrPort
}

func (l listener) String() string { return l.proto + " " + l.at.String() }

// reached tells whether a packet to that address arrives at the socket.
func (l listener) reached(proto string, to netip.AddrPort) bool {
	if l.proto != proto || l.at.Port() != to.Port() {
		return false
	}
	a := l.at.Addr()
	// A socket on :: takes IPv4 as well, unless it said otherwise, which the kernel does not show here.
	return a == to.Addr() || a.IsUnspecified() && (a.Is6() || to.Addr().Is4())
}

// listeners reads the sockets of the container's network namespace (proc(5), /proc/PID/net/tcp).
func (v *view) listeners() ([]listener, error) {
	var out []listener
	for _, f := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, err := v.proc("net/" + f)
		if err != nil {
			if strings.HasSuffix(f, "6") && v.Pid > 0 {
				continue // no IPv6 on this machine
			}
			return out, err
		}
		list, err := parseSockets(strings.TrimSuffix(f, "6"), b)
		if err != nil {
			return out, err
		}
		out = append(out, list...)
	}
	return out, nil
}

// Socket states: a TCP socket listens, a UDP socket has no peer.
const tcpListen, udpOpen = "0A", "07"

func parseSockets(proto string, b []byte) ([]listener, error) {
	var out []listener
	first := true
	for l := range bytes.Lines(b) {
		f := strings.Fields(string(l))
		if first || len(f) < 4 {
			first = false
			continue
		}
		if f[3] != tcpListen && f[3] != udpOpen || (f[3] == tcpListen) != (proto == "tcp") {
			continue
		}
		at, err := parseSocket(f[1])
		if err != nil {
			return out, err
		}
		if x := (listener{proto, at}); !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out, nil
}

// parseSocket reads an address as the kernel prints it: 32-bit words in the machine's byte order, in hexadecimal.
func parseSocket(s string) (netip.AddrPort, error) {
	bad := fmt.Errorf("socket address %q: want ADDRESS:PORT in hexadecimal", s)
	a, p, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(a)
	port, perr := strconv.ParseUint(p, 16, 16)
	if !ok || err != nil || perr != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, bad
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(port)), nil
}

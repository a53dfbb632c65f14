package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

func TestResolvConf(t *testing.T) {
	const host = "# a comment\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver fe80::1%eth0\nsearch lan example.org\noptions edns0 trust-ad\n"
	for name, c := range map[string]struct {
		spec ResolvSpec
		want string
	}{
		"host":     {ResolvSpec{}, "nameserver 192.0.2.1\nsearch lan example.org\noptions edns0 trust-ad\n"},
		"ipv6":     {ResolvSpec{IPv6: true}, "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch lan example.org\noptions edns0 trust-ad\n"},
		"embedded": {ResolvSpec{Embedded: true}, "nameserver 127.0.0.11\nsearch lan example.org\noptions edns0 trust-ad ndots:0\n"},
		"ndots":    {ResolvSpec{Embedded: true, Options: []string{"ndots:2"}, Search: []string{"."}}, "nameserver 127.0.0.11\noptions ndots:2\n"},
		"given":    {ResolvSpec{Servers: []string{"9.9.9.9"}, Search: []string{"x"}, Options: []string{"y"}}, "nameserver 9.9.9.9\nsearch x\noptions y\n"},
	} {
		c.spec.Host = []byte(host)
		if got, err := ResolvConf(c.spec); err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
	for _, bad := range []ResolvSpec{{Servers: []string{"1.1.1.1\nnameserver 6.6.6.6"}}, {Search: []string{"a\nb"}}, {Options: []string{"a\x00"}}, {Servers: []string{"one.one"}}} {
		if _, err := ResolvConf(bad); !errdef.Is(err, errdef.InvalidArgument) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestHostsFile(t *testing.T) {
	got, err := HostsFile(HostsSpec{
		Hostname: "box", Domainname: "example.org", Addrs: []netip.Addr{netip.MustParseAddr("172.17.0.2"), netip.MustParseAddr("fd00::2")},
		Extra: []string{"up:host-gateway", "six:[::1]", "db:10.0.0.1"}, Gateway: netip.MustParseAddr("172.17.0.1"),
	})
	want := "127.0.0.1\tlocalhost\n172.17.0.1\tup\n::1\tsix\n10.0.0.1\tdb\n172.17.0.2\tbox.example.org box\nfd00::2\tbox.example.org box\n"
	if err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	for _, bad := range []HostsSpec{{Hostname: "a\n1.2.3.4 bank"}, {Extra: []string{"a:1.1.1.1\n"}}, {Extra: []string{"a"}}, {Extra: []string{":1.1.1.1"}}, {Extra: []string{"a b:1.1.1.1"}}, {Extra: []string{"a:b"}}, {Extra: []string{"a:host-gateway"}}} {
		if _, err := HostsFile(bad); !errdef.Is(err, errdef.InvalidArgument) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// FuzzFiles: whatever is asked for, no line appears that was not asked for as a line.
func FuzzFiles(f *testing.F) {
	f.Add("nameserver 1.1.1.1\n", "box", "a:1.1.1.1", "lan")
	f.Add("options\x00", "b\n", "a:host-gateway", " ")
	f.Fuzz(func(t *testing.T, host, name, extra, search string) {
		if out, err := ResolvConf(ResolvSpec{Host: []byte(host), Search: []string{search}}); err == nil {
			for line := range strings.Lines(string(out)) {
				if word := strings.Fields(line)[0]; word != "nameserver" && word != "search" && word != "options" {
					t.Errorf("line %q", line)
				}
			}
		}
		if out, err := HostsFile(HostsSpec{Hostname: name, Addrs: []netip.Addr{netip.IPv4Unspecified()}, Extra: []string{extra}}); err == nil {
			if n := strings.Count(string(out), "\n"); n > 3 {
				t.Errorf("%d lines", n)
			}
		}
	})
}

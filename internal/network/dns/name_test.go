package dns

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

func TestReverse(t *testing.T) {
	for _, s := range []string{"172.17.0.2", "255.255.255.255", "fd00::2", "2001:db8:1:2:3:4:5:6"} {
		name, err := dns.ReverseAddr(s)
		if err != nil {
			t.Fatal(err)
		}
		if a, ok := reverse(name); !ok || a != netip.MustParseAddr(s) {
			t.Errorf("%s: %s, %v", name, a, ok)
		}
	}
	for _, s := range []string{"", ".", "in-addr.arpa.", "1.2.3.in-addr.arpa.", "256.1.1.1.in-addr.arpa.", "a.1.1.1.in-addr.arpa.", "-1.1.1.1.in-addr.arpa.", "1.2.3.4.5.in-addr.arpa.", "ip6.arpa.", "0.ip6.arpa."} {
		if a, ok := reverse(s); ok {
			t.Errorf("%q is no address: %s", s, a)
		}
	}
}

func FuzzReverse(f *testing.F) {
	f.Add("2.0.17.172.in-addr.arpa.")
	f.Fuzz(func(t *testing.T, s string) {
		if a, ok := reverse(s); ok && !a.IsValid() {
			t.Errorf("%q: invalid address taken for one", s)
		}
	})
}

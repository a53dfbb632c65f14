package plan

import (
	"flag"
	"net"
	"net/netip"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden builds the plan of a container with everything and compares its text.
func TestGolden(t *testing.T) {
	mac := net.HardwareAddr{2, 0x42, 172, 18, 0, 2}
	as := []Attachment{
		{Network: "app", Bridge: "dhow-0123456789", HostLink: "dhabcdefabcd", Ifname: "eth0", MAC: mac, MTU: 1500,
			IPv4: netip.MustParsePrefix("172.18.0.2/16"), IPv6: netip.MustParsePrefix("fd00::2/64"),
			Gateway4: netip.MustParseAddr("172.18.0.1"), Gateway6: netip.MustParseAddr("fd00::1")},
		{Network: "closed", Bridge: "dhow-9876543210", HostLink: "dhabcdefabcd", Ifname: "eth1", MAC: mac, MTU: 1400, Isolated: true, IPv4: netip.MustParsePrefix("172.19.0.2/16")},
	}
	var ps []Publication
	for _, host := range []string{"0.0.0.0:8080", "[::]:8080", "127.0.0.1:53", "[::1]:9"} {
		ap := netip.MustParseAddrPort(host)
		to := netip.MustParseAddrPort("172.18.0.2:80")
		if ap.Addr().Is6() {
			to = netip.MustParseAddrPort("[fd00::2]:80")
		}
		ps = append(ps, Publication{Proto: TCP, HostIP: ap.Addr(), HostPort: ap.Port(), To: to, Why: "-p " + host})
	}
	ps[2].Proto, ps[3].Proto = UDP, SCTP
	full := Build("abcdef", as, ps, map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.core.somaxconn": "99"})
	v4 := Build("abcdef", []Attachment{{Network: "bridge", Bridge: "dhow0", HostLink: "dhabcdefabcd", Ifname: "eth0", MAC: mac, MTU: 1500,
		IPv4: netip.MustParsePrefix("172.17.0.2/16"), Gateway4: netip.MustParseAddr("172.17.0.1")}}, nil, nil)
	for name, p := range map[string]Plan{"full": full, "v4": v4, "none": Build("abcdef", nil, nil, nil)} {
		file := "testdata/" + name + ".txt"
		if *update {
			if err := os.WriteFile(file, []byte(p.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.String(); got != string(want) {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
		}
	}
}

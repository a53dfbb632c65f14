package mountinfo

import "testing"

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{"/plain": "/plain", `/a\040b`: "/a b", `/\134040`: `/\040`, `/t\011n\012`: "/t\tn\n", `/end\04`: `/end\04`, `/\999`: `/\999`, `\`: `\`} {
		if got := Unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

package id

import "testing"

func TestNew(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		s := New()
		if len(s) != Len || seen[s] || allDigits(s[:ShortLen]) {
			t.Fatalf("bad id %q", s)
		}
		seen[s] = true
	}
}

func TestValidName(t *testing.T) {
	for _, ok := range []string{"ab", "a1", "web-1", "a_b.c", Name(0), Name(3)} {
		if err := ValidName(ok); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "a", "-a", "a/b", "..", "a b", "é2", "a\nb"} {
		if ValidName(bad) == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func TestShort(t *testing.T) {
	if Short("sha256:0123456789abcdef") != "0123456789ab" || Short("abc") != "abc" {
		t.Fatal("short")
	}
}

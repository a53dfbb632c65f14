package registry

import "testing"

func TestDomain(t *testing.T) {
	for in, want := range map[string]string{
		"https://index.docker.io/v1/": "docker.io", "docker.io": "docker.io", "registry-1.docker.io": "docker.io", "": "",
		"ghcr.io": "ghcr.io", "https://Reg.Example:5000/v2/": "reg.example:5000", "localhost:5000": "localhost:5000", "http://127.0.0.1:5000": "127.0.0.1:5000",
	} {
		if got := Domain(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	a := &Auth{Username: "u"}
	if a.For("docker.io", "https://index.docker.io/v1/") != a || a.For("x.io", "") != a || a.For("x.io", "x.io:443") != nil || a.For("evil.io", "x.io") != nil {
		t.Error("For")
	}
}

func TestParseChallenge(t *testing.T) {
	c := parseChallenge(`Bearer realm="https://a/b?c=\"d\"", service=x,scope="repository:a:pull,push" , error="insufficient_scope"`)
	want := map[string]string{"realm": `https://a/b?c="d"`, "service": "x", "scope": "repository:a:pull,push", "error": "insufficient_scope"}
	if c.scheme != "bearer" || len(c.params) != len(want) {
		t.Fatal(c)
	}
	for k, v := range want {
		if c.params[k] != v {
			t.Errorf("%s = %q", k, c.params[k])
		}
	}
	for _, odd := range []string{"", "Basic", `Bearer realm="`, "Bearer =", "Bearer ,,,", "Bearer a", `x y="\`} {
		parseChallenge(odd)
	}
}

// FuzzChallenge: no panic and no endless loop.
func FuzzChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://a",service=x`)
	f.Fuzz(func(t *testing.T, s string) { parseChallenge(s) })
}

func TestInsecure(t *testing.T) {
	k := New(Config{Insecure: []string{"reg.lan", "other.lan:5000", "10.1.0.0/16"}})
	for host, want := range map[string]bool{
		"localhost:5000": true, "127.0.0.1": true, "127.9.9.9:1": true, "[::1]:5000": true, "reg.lan:1": true, "reg.lan": true, "other.lan:5000": true,
		"10.1.2.3:5000": true, "10.2.0.1:5000": false, "other.lan:5001": false, "192.168.0.1:5000": false, "localhost.evil.io": false, "127.0.0.1.evil.io:80": false,
		"evil-reg.lan": false, "registry-1.docker.io": false, "app.local:5000": false,
	} {
		if k.insecure(host) != want {
			t.Errorf("%s: %v", host, !want)
		}
	}
}

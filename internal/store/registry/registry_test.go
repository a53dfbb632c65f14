package registry_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/registry"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const user, secret = "sailor", "s3cret-word"

var basic = "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+secret))

func auth() *registry.Auth { return &registry.Auth{Username: user, Password: secret} }

func client(insecure ...string) *registry.Client {
	return registry.New(registry.Config{BackOff: time.Millisecond, MaxWait: 2 * time.Second, Stall: time.Second, Finish: time.Second, Insecure: insecure})
}

func image(t *testing.T) *kit.Image {
	return kit.Build(t, kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("f", strings.Repeat("hull ", 1000)))}})
}

func repo(t *testing.T, k *registry.Client, name string, a *registry.Auth) *registry.Repo {
	t.Helper()
	r, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return k.Repo(r, a)
}

func readBlob(t *testing.T, p *registry.Repo, d ocispec.Descriptor) error {
	t.Helper()
	b, err := p.Blob(context.Background(), d)
	if err != nil {
		return err
	}
	defer b.Close()
	_, err = io.Copy(io.Discard, b)
	return err
}

// needs lets a request pass only with one of these Authorization headers, and challenges any other.
func needs(challenge string, ok ...string) kit.Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		for _, h := range ok {
			if r.Header.Get("Authorization") == h {
				return false
			}
		}
		return kit.Status(http.StatusUnauthorized, "", "WWW-Authenticate", challenge)(w, r)
	}
}

// clean fails when a host saw a credential of ours.
func clean(t *testing.T, h *kit.Hostile) {
	t.Helper()
	for _, s := range h.Seen() {
		if s.Authorization != "" || s.Cookie != "" || strings.Contains(s.Path, secret) {
			t.Errorf("%s %s carried %q %q", s.Method, s.Path, s.Authorization, s.Cookie)
		}
	}
}

func TestTokens(t *testing.T) {
	h := kit.StartHostile(t)
	img := image(t)
	name := h.Serve("team/app:1", img)
	var asked []url.Values
	h.Fault("other", func(w http.ResponseWriter, r *http.Request) bool {
		q := r.URL.Query()
		if r.Method == http.MethodPost {
			r.ParseForm()
			q = r.PostForm
		}
		asked = append(asked, q)
		if a := r.Header.Get("Authorization"); a != "" && a != basic {
			return kit.Status(401, "")(w, r)
		}
		return kit.Status(200, `{"access_token":"tok-1","expires_in":300}`)(w, r)
	})
	h.Fault("*", func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/v2/") {
			return false
		}
		return needs(fmt.Sprintf(`Bearer realm="%s/token?x=1",service="svc, with comma",scope="repository:evil:push"`, h.URL), "Bearer tok-1")(w, r)
	})
	for _, a := range []*registry.Auth{nil, auth(), {IdentityToken: "refresh-me"}} {
		asked = nil
		p := repo(t, client(), name, a)
		if _, _, err := p.Manifest(context.Background(), ""); err != nil {
			t.Fatal(err)
		}
		if err := readBlob(t, p, img.Manifest.Config); err != nil {
			t.Fatal(err)
		}
		if len(asked) != 1 {
			t.Fatalf("%d tokens asked for, want 1", len(asked))
		}
		q := asked[0]
		if q.Get("scope") != "repository:team/app:pull" || q.Get("service") != "svc, with comma" || q.Get("x") != "1" {
			t.Errorf("asked %v", q)
		}
		if a != nil && a.IdentityToken != "" && (q.Get("refresh_token") != "refresh-me" || q.Get("grant_type") != "refresh_token") {
			t.Errorf("asked %v", q)
		}
	}
	p := repo(t, client(), name, &registry.Auth{Username: user, Password: "wrong"})
	if _, _, err := p.Manifest(context.Background(), ""); !errdef.Is(err, errdef.Unauthorized) {
		t.Error(err)
	}
}

// TestCredentialsStayHome is torture case 49: whatever a registry answers, another host sees no credential byte.
func TestCredentialsStayHome(t *testing.T) {
	img := image(t)
	layer := img.Manifest.Layers[0]
	for name, c := range map[string]func(h, evil *kit.Hostile) (wantErr bool){
		"302 to another host": func(h, evil *kit.Hostile) bool {
			h.Fault(layer.Digest.String(), kit.Status(302, "", "Location", evil.URL+"/v2/x/blobs/"+layer.Digest.String()))
			return false
		},
		"307 chain": func(h, evil *kit.Hostile) bool {
			evil.Fault(layer.Digest.String(), kit.Times(3, kit.Status(307, "", "Location", evil.URL+"/v2/x/blobs/"+layer.Digest.String())))
			h.Fault(layer.Digest.String(), kit.Status(307, "", "Location", evil.URL+"/v2/x/blobs/"+layer.Digest.String(), "Set-Cookie", "c=1"))
			return false
		},
		"basic challenge there": func(h, evil *kit.Hostile) bool {
			evil.Fault("*", kit.Status(401, "", "WWW-Authenticate", `Basic realm="x"`))
			h.Fault(layer.Digest.String(), kit.Status(302, "", "Location", evil.URL+"/v2/x/blobs/"+layer.Digest.String()))
			return true
		},
		"bearer challenge there": func(h, evil *kit.Hostile) bool {
			evil.Fault("*", kit.Status(401, "", "WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token"`, evil.URL)))
			h.Fault(layer.Digest.String(), kit.Status(302, "", "Location", evil.URL+"/v2/x/blobs/"+layer.Digest.String()))
			return true
		},
		"redirect loop": func(h, evil *kit.Hostile) bool {
			evil.Fault("*", kit.Status(302, "", "Location", evil.URL+"/v2/"))
			h.Fault(layer.Digest.String(), kit.Status(302, "", "Location", evil.URL))
			return true
		},
		"foreign layer urls": func(h, evil *kit.Hostile) bool {
			h.Fault(layer.Digest.String(), kit.Status(404, ""))
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, evil := kit.StartHostile(t), kit.StartHostile(t)
			full := h.Serve("app:1", img)
			evil.Serve("x:1", img)
			h.Fault("*", needs(`Basic realm="r"`, basic))
			d := layer
			d.URLs = []string{evil.URL + "/v2/x/blobs/" + d.Digest.String()}
			if wantErr := c(h, evil); (readBlob(t, repo(t, client(), full, auth()), d) != nil) != wantErr {
				t.Error("error wanted:", wantErr)
			}
			clean(t, evil)
			if name == "foreign layer urls" && len(evil.Seen()) != 0 {
				t.Error("the url of a foreign layer was followed")
			}
			sent := 0
			for _, s := range h.Seen() {
				if s.Authorization == basic {
					sent++
				}
			}
			if sent == 0 {
				t.Error("the test proves nothing: the registry itself never got the credentials")
			}
		})
	}
}

func TestRealms(t *testing.T) {
	img := image(t)
	for _, c := range []string{"http at another host", "userinfo", "other scheme", "none"} {
		t.Run(c, func(t *testing.T) {
			h, evil := kit.StartHostile(t), kit.StartHostile(t)
			evil.Fault("other", kit.Status(200, `{"token":"t"}`))
			realm := map[string]string{"http at another host": evil.URL + "/token", "userinfo": "http://a:b@" + h.Host + "/token", "other scheme": "ftp://" + h.Host}[c]
			h.Fault("*", kit.Status(401, "", "WWW-Authenticate", `Bearer realm="`+realm+`",service="s"`))
			_, _, err := repo(t, client(), h.Serve("app:1", img), auth()).Manifest(context.Background(), "")
			if !errdef.Is(err, errdef.Forbidden) {
				t.Error(err)
			}
			clean(t, evil)
		})
	}
}

// TestLoops: 401 without end, 429, 503 and connection breaks are tried a bounded number of times.
func TestLoops(t *testing.T) {
	img := image(t)
	for name, c := range map[string]struct {
		f     kit.Fault
		kind  errdef.Kind
		tries int
	}{
		"401 basic":              {kit.Status(401, "", "WWW-Authenticate", `Basic realm="x"`), errdef.Unauthorized, 2},
		"401 mute":               {kit.Status(401, ""), errdef.Unauthorized, 1},
		"429 Retry-After 0":      {kit.Status(429, "", "Retry-After", "0"), errdef.Unavailable, 5},
		"429 Retry-After 10^9":   {kit.Status(429, "", "Retry-After", "1000000000"), errdef.Unavailable, 1},
		"429 Retry-After 10^30":  {kit.Status(429, "", "Retry-After", "1"+strings.Repeat("0", 30)), errdef.Unavailable, 5},
		"503 date in the past":   {kit.Status(503, "", "Retry-After", "Mon, 02 Jan 2006 15:04:05 GMT"), errdef.Unavailable, 5},
		"503 date in the future": {kit.Status(503, "", "Retry-After", "Mon, 02 Jan 2090 15:04:05 GMT"), errdef.Unavailable, 1},
		"400":                    {kit.Status(400, ""), errdef.Unavailable, 1},
		"cut":                    {func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, errdef.Unavailable, 5},
	} {
		t.Run(name, func(t *testing.T) {
			h := kit.StartHostile(t)
			full := h.Serve("app:1", img)
			h.Fault("manifest", c.f)
			_, _, err := repo(t, client(), full, auth()).Manifest(context.Background(), "")
			if !errdef.Is(err, c.kind) {
				t.Errorf("kind %d: %v", errdef.KindOf(err), err)
			}
			tries := 0
			for _, s := range h.Seen() {
				if s.Method == http.MethodGet && strings.Contains(s.Path, "/manifests/") {
					tries++
				}
			}
			if tries > c.tries*2 || tries < c.tries { // net/http itself repeats a GET on a re-used connection that broke
				t.Errorf("%d requests, want %d", tries, c.tries)
			}
		})
	}
	h := kit.StartHostile(t)
	full := h.Serve("app:1", img)
	h.Fault("manifest", kit.Times(1, kit.Status(429, "", "Retry-After", "1")))
	start := time.Now()
	if _, _, err := repo(t, client(), full, nil).Manifest(context.Background(), ""); err != nil || time.Since(start) < 900*time.Millisecond {
		t.Error("Retry-After was not kept:", err, time.Since(start))
	}
}

// TestErrorText: a registry's words are bounded and cannot move a terminal's cursor.
func TestErrorText(t *testing.T) {
	h := kit.StartHostile(t)
	full := h.Serve("app:1", image(t))
	for _, body := range []string{"\x1b]52;c;evil\x07\x1b[2J" + strings.Repeat("A", 10<<20), `{"errors":[{"code":"DENIED","message":"\u001b[31m\u202e` + strings.Repeat("x", 2000) + `"}]}`} {
		h.Fault("manifest", kit.Status(400, body))
		_, _, err := repo(t, client(), full, nil).Manifest(context.Background(), "")
		if err == nil || strings.ContainsAny(err.Error(), "\x1b\x07\u202e") || len(err.Error()) > 4096 || !strings.Contains(err.Error(), `\x1b`) {
			t.Errorf("%.300q", err)
		}
	}
	h.Fault("manifest", func(w http.ResponseWriter, r *http.Request) bool {
		for i := range 3000 {
			w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("h", 100))
		}
		return kit.Status(200, "")(w, r)
	})
	if _, _, err := repo(t, client(), full, nil).Manifest(context.Background(), ""); !errdef.Is(err, errdef.Unavailable) {
		t.Error("300 KB of headers:", err)
	}
}

func TestSchemes(t *testing.T) {
	img := image(t)
	ctx := context.Background()
	// https with a certificate nobody trusts, on loopback: used, not verified, as Docker does for 127.0.0.0/8.
	s := kit.StartHostileTLS(t)
	if _, _, err := repo(t, client(), s.Serve("app:1", img), nil).Manifest(ctx, ""); err != nil {
		t.Error(err)
	}
	// From https a redirect to http is refused.
	h := kit.StartHostile(t)
	h.Serve("app:1", img)
	layer := img.Manifest.Layers[0]
	s.Fault(layer.Digest.String(), kit.Status(302, "", "Location", h.URL+"/v2/app/blobs/"+layer.Digest.String()))
	if err := readBlob(t, repo(t, client(), s.Host+"/app:1", auth()), layer); err == nil || !strings.Contains(err.Error(), "https to http") {
		t.Error(err)
	}
	if n := len(h.Seen()); n != 0 {
		t.Errorf("%d requests by http", n)
	}
	// A host that is neither loopback nor configured is never spoken to by http.
	_, _, err := repo(t, client(), "registry.invalid:5000/app:1", auth()).Manifest(ctx, "")
	if !errdef.Is(err, errdef.Unavailable) || !strings.Contains(err.Error(), "registry.invalid") {
		t.Error(err)
	}
}

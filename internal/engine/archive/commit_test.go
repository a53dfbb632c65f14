package archive

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// TestCommitted: changes lie over the request, the request over what the container was made with.
func TestCommitted(t *testing.T) {
	own := container.Config{
		User: "own", Env: []string{"PATH=/bin", "A=own"}, Cmd: []string{"own"}, Entrypoint: []string{"/own"}, WorkingDir: "/own",
		Labels: map[string]string{"own": "1", "both": "own"}, Volumes: map[string]struct{}{"/own": {}}, StopSignal: "SIGHUP",
		ExposedPorts: network.PortSet{network.MustParsePort("80/tcp"): {}}, Hostname: "box", Image: "x", Tty: true,
		Healthcheck: &container.HealthConfig{Test: []string{"CMD", "own"}},
	}
	for _, c := range []struct {
		o    api.CommitOptions
		want string
	}{
		{api.CommitOptions{}, `{"User":"own","ExposedPorts":{"80/tcp":{}},"Env":["PATH=/bin","A=own"],"Entrypoint":["/own"],"Cmd":["own"],"Volumes":{"/own":{}},` +
			`"WorkingDir":"/own","Labels":{"both":"own","own":"1"},"StopSignal":"SIGHUP","Healthcheck":{"Test":["CMD","own"]}}`},
		{api.CommitOptions{Changes: []string{"CMD [\"new\"]"}}, `"Entrypoint":["/own"],"Cmd":["new"]`},
		{api.CommitOptions{Changes: []string{"ENTRYPOINT [\"/new\"]"}}, `"Entrypoint":["/new"],"Volumes"`},
		{api.CommitOptions{Changes: []string{"ENV PATH=/new:$PATH B=$A"}}, `"Env":["A=own","PATH=/new:/bin","B=own"]`},
		{api.CommitOptions{Changes: []string{"WORKDIR below", "LABEL both=new", "EXPOSE 81", "VOLUME /new", "HEALTHCHECK NONE", "ONBUILD RUN x"}},
			`"ExposedPorts":{"80/tcp":{},"81/tcp":{}},"Env":["PATH=/bin","A=own"],"Entrypoint":["/own"],"Cmd":["own"],"Volumes":{"/new":{},"/own":{}},` +
				`"WorkingDir":"/own/below","Labels":{"both":"new","own":"1"},"StopSignal":"SIGHUP","Healthcheck":{"Test":["NONE"]},"OnBuild":["RUN x"]}`},
		{api.CommitOptions{Config: &container.Config{Cmd: []string{"asked"}, User: "asked", Env: []string{"A=asked"}}, Changes: []string{"USER changed"}},
			`{"User":"changed","ExposedPorts":{"80/tcp":{}},"Env":["PATH=/bin","A=asked"],"Entrypoint":["/own"],"Cmd":["asked"]`},
		{api.CommitOptions{Changes: []string{"RUN x"}}, `not a valid change`},
		{api.CommitOptions{Config: &container.Config{Env: []string{"=x"}}}, `has no name`},
	} {
		got, err := committed(&own, c.o)
		text, _ := json.Marshal(got)
		if err != nil {
			text = []byte(err.Error())
		}
		if !strings.Contains(string(text), c.want) {
			t.Errorf("%+v:\n got %s\nwant %s", c.o, text, c.want)
		}
	}
	if len(own.Env) != 2 || own.Env[0] != "PATH=/bin" || len(own.Labels) != 2 {
		t.Errorf("the container's own configuration changed: %+v", own)
	}
}

// TestFetch: only http and https, also behind redirects, and not for ever.
func TestFetch(t *testing.T) {
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	defer srv.Close()
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/head", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) })
	quiet := func(jsonstream.Message) {}
	for from, want := range map[string]errdef.Kind{
		srv.URL + "/nosuch": errdef.Unavailable, srv.URL + "/file": errdef.Unavailable, srv.URL + "/loop": errdef.Unavailable, srv.URL + "/head": errdef.Unavailable,
		"file:///etc/passwd": errdef.InvalidArgument, "ftp://x/y": errdef.InvalidArgument, "http://": errdef.InvalidArgument, "http://\x7f": errdef.InvalidArgument,
		"http://" + netip.MustParseAddr("127.0.0.1").String() + ":1/": errdef.Unavailable,
	} {
		b, err := fetch(t.Context(), from, quiet)
		if errdef.KindOf(err) != want || err == nil {
			t.Errorf("%s: %v", from, err)
		}
		if b != nil {
			b.Close()
		}
	}
	var said string
	fetch(t.Context(), strings.Replace(srv.URL, "http://", "http://me:secret@", 1)+"/nosuch", func(m jsonstream.Message) { said = m.Status })
	if strings.Contains(said, "secret") || !strings.Contains(said, "me:xxxxx@") {
		t.Error(said)
	}
}

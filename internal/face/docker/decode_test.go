package docker

import (
	"encoding/base64"
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/engine/api"
)

func TestFilters(t *testing.T) {
	for in, want := range map[string]api.Filters{
		"": nil,
		`{"label":{"a=b":true,"c":true},"status":{"x":false}}`: {"label": {"a=b", "c"}},
		`{"label":["c","a=b","c"],"name":[]}`:                  {"label": {"a=b", "c"}},
		`{"dangling":["true"],"label":{"x":true}}`:             {"dangling": {"true"}, "label": {"x"}},
		`null`: {},
	} {
		got, err := parseFilters(in)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{`[]`, `"x"`, `{"a":1}`, `{"a":"b"}`, `{"a":[1]}`, `{"a":{"b":1}}`, `{"a":["b"]} {}`, `{`} {
		if got, err := parseFilters(in); err == nil {
			t.Errorf("%s accepted: %v", in, got)
		}
	}
}

func FuzzFilters(f *testing.F) {
	f.Add(`{"label":{"a":true}}`)
	f.Add(`{"label":["a"]}`)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseFilters(s)
		if err != nil {
			return
		}
		for k, v := range got {
			if len(v) == 0 || !slices.IsSorted(v) {
				t.Errorf("%q: %v", k, v)
			}
		}
	})
}

func FuzzCreate(f *testing.F) {
	f.Add(`{"Image":"x","HostConfig":{"Ulimits":[{"Name":"nofile"}],"PortBindings":{"80/tcp":[{"HostPort":"1"}]}}}`, 41)
	f.Add(`{"Image":"x","MacAddress":"02:42:ac:11:00:02","NetworkingConfig":{"EndpointsConfig":{"n":null}}}`, 43)
	f.Fuzz(func(t *testing.T, s string, minor int) {
		c := &call{minor: minor, body: []byte(s)}
		if len(s) > maxBody || checkDepth(c.body, maxDepth) != nil {
			return
		}
		req, err := decodeCreate(c)
		if err != nil {
			return
		}
		if req.Config == nil || req.HostConfig == nil || req.NetworkingConfig == nil || req.NetworkingConfig.EndpointsConfig == nil {
			t.Fatal("something is nil")
		}
		for n, e := range req.NetworkingConfig.EndpointsConfig {
			if e == nil {
				t.Fatalf("endpoint %s is nil", n)
			}
		}
		if slices.Contains(req.HostConfig.Ulimits, nil) {
			t.Fatal("nil ulimit")
		}
	})
}

func TestOldMAC(t *testing.T) {
	c := &call{minor: 43, body: []byte(`{"Image":"x","MacAddress":"02:42:ac:11:00:09","HostConfig":{"NetworkMode":"n1"}}`)}
	req, err := decodeCreate(c)
	if err != nil {
		t.Fatal(err)
	}
	if got := req.NetworkingConfig.EndpointsConfig["n1"].MacAddress.String(); got != "02:42:ac:11:00:09" {
		t.Errorf("mac %q", got)
	}
}

func TestAuth(t *testing.T) {
	js := []byte(`{"username":"ü?>","password":"p"}`)
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
		a, err := decodeAuth([]string{enc.EncodeToString(js)})
		if err != nil || a == nil || a.Username != "ü?>" || a.Password != "p" {
			t.Errorf("%v, %v", a, err)
		}
	}
	for _, none := range [][]string{nil, {""}, {"e30="}, {base64.URLEncoding.EncodeToString([]byte(`{"serveraddress":"r.test"}`))}} {
		if a, err := decodeAuth(none); a != nil || err != nil {
			t.Errorf("%q: %v, %v", none, a, err)
		}
	}
}

func TestMoment(t *testing.T) {
	for in, want := range map[string]time.Time{
		"": {}, "0": {}, "1700000000": time.Unix(1700000000, 0), "1700000000.5": time.Unix(1700000000, 5e8),
		"1700000000.000000001": time.Unix(1700000000, 1), "2026-01-02T03:04:05Z": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	} {
		req, _ := http.NewRequest("GET", "/?since="+in, nil)
		if got, err := (&call{r: req}).moment("since"); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
}

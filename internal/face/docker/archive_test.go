package docker

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

func TestArchives(t *testing.T) {
	f := newFake()
	srv := httptest.NewServer(New(Config{Engine: f.engine()}))
	defer srv.Close()
	for _, c := range []struct{ method, path, body, want string }{
		{"GET", "/images/get?names=a&names=b:1", "", "200 a tar of [a b:1]"},
		{"GET", "/images/reg.io/x/y:1/get?platform=%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22arm64%22%7D", "", "200 a tar of [reg.io/x/y:1]"},
		{"GET", "/images/get?names=nosuch", "", "404 No such image"},
		{"GET", "/images/get?names=a&platform=linux/arm64", "", "400 invalid platform"},
		{"GET", "/v1.51/images/get?names=a&platform={\"os\":\"linux\",\"architecture\":\"a\"}&platform={\"os\":\"linux\",\"architecture\":\"b\"}", "", "400 need API version 1.52"},
		{"GET", "/images/damaged/get", "", "cut"},
		{"POST", "/images/load?quiet=1", "0123456789", "200 Loaded image: x:latest"},
		{"POST", "/images/load", "bad", "400 not a tar"},
		{"POST", "/images/create?fromSrc=-&repo=r&tag=t&message=m&changes=CMD+a&changes=ENV+b%3Dc&platform=linux/arm64", "tar", `200 "status":"sha256:0"`},
		{"POST", "/images/create?fromSrc=", "tar", "400 fromSrc is empty"},
		{"POST", "/commit?container=c&repo=r&author=a&comment=m&pause=0&changes=CMD+x", "null", `201 {"Id":"sha256:1"}`},
		{"POST", "/commit?container=c", `{"Cmd":["x"]}`, `201 {"Id":"sha256:1"}`},
		{"POST", "/commit", "", "400 container is empty"},
		{"GET", "/containers/none/export", "", "404 No such container"},
	} {
		req, err := http.NewRequest(c.method, srv.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(c.path, "/commit") && c.body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		got := answer(t, req)
		code, text, _ := strings.Cut(c.want, " ")
		if !strings.HasPrefix(got, code) || !strings.Contains(got, text) {
			t.Errorf("%s %s: %s, want %s", c.method, c.path, got, c.want)
		}
	}
	all := strings.Join(f.calls, "\n")
	for _, want := range []string{
		"save [a b:1] []", "save [reg.io/x/y:1] [{arm64 linux", "load 10 bytes [] quiet=true",
		"import {URL: Ref:r:t Message:m Platform:linux/arm64 Changes:[CMD a ENV b=c]} 3 bytes",
		"commit {Container:c Ref:r Author:a Comment:m Pause:false Changes:[CMD x] Config:<nil>}", "commit config [x]",
		"commit {Container:c Ref: Author: Comment: Pause:true Changes:[] Config:<nil>}",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q among\n%s", want, all)
		}
	}
}

// answer is the status and the body, or "cut" when the answer broke off.
func answer(t *testing.T, req *http.Request) string {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "cut"
	}
	defer resp.Body.Close()
	var b strings.Builder
	if err := resp.Write(&b); err != nil {
		return "cut"
	}
	_, text, _ := strings.Cut(b.String(), " ")
	return text
}

// TestRefusedWhileSending: a client that still sends hears why it is refused, not that its connection broke.
func TestRefusedWhileSending(t *testing.T) {
	f := newFake()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: New(Config{Engine: f.engine()})}
	go srv.Serve(l) // ends with Close
	defer srv.Close()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	body := append([]byte("refuse"), make([]byte, 8<<20)...)
	for i := range 50 {
		resp, err := client.Post("http://x/images/load", "application/x-tar", bytes.NewReader(body))
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 400 || !strings.Contains(string(text), "refused at once") {
			t.Fatalf("%d: %s %s %v", i, resp.Status, text, err)
		}
	}
}

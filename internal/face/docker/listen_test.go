package docker

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

func TestListen(t *testing.T) {
	dir, err := os.MkdirTemp("", "dhowl")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	sock := filepath.Join(dir, "s")
	l, err := Listen("unix://" + sock)
	if err != nil {
		t.Fatal(err)
	}
	st, _ := os.Stat(sock)
	if st.Mode().Perm() != 0o660 {
		t.Errorf("mode %v", st.Mode())
	}
	if gid, ok := socketGroup(); ok && os.Geteuid() == 0 && int(st.Sys().(*syscall.Stat_t).Gid) != gid {
		t.Errorf("group %d, want %d", st.Sys().(*syscall.Stat_t).Gid, gid)
	}
	if _, err := Listen("unix://" + sock); !errdef.Is(err, errdef.Conflict) {
		t.Errorf("second engine: %v", err)
	}
	l.Close()
	if es, _ := os.ReadDir(dir); len(es) != 0 {
		t.Errorf("left behind: %v", es)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if l, err = Listen("unix://" + sock); err != nil {
		t.Fatalf("a dead socket is in the way: %v", err)
	}
	l.Close()
	if err := os.WriteFile(sock, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("unix://" + sock); !errdef.Is(err, errdef.Conflict) {
		t.Errorf("a file: %v", err)
	}
	if b, _ := os.ReadFile(sock); string(b) != "precious" {
		t.Error("the file was replaced")
	}
}

func TestListenRefuses(t *testing.T) {
	for addr, want := range map[string]string{
		"tcp://127.0.0.1:0":   "mutual TLS",
		"unix://relative":     "absolute",
		"fd://":               "want unix:///path",
		"/run/dhow/dhow.sock": "want unix:///path",
	} {
		if _, err := Listen(addr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

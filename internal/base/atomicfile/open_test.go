package atomicfile

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenTakesRegularFilesOnly(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(at("file"), []byte("x"), 0o600), os.Mkdir(at("folder"), 0o700), unix.Mkfifo(at("pipe"), 0o600),
		os.Symlink("file", at("link"))); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, want := range map[string]error{"file": nil, "folder": ErrIrregular, "pipe": ErrIrregular, "link": ErrIrregular, "socket": ErrIrregular,
		"none": fs.ErrNotExist, "/dev/null": ErrIrregular} {
		if !filepath.IsAbs(name) {
			name = at(name)
		}
		f, err := Open(name)
		if !errors.Is(err, want) || (err == nil) != (f != nil) {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
	}
}

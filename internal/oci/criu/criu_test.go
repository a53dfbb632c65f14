package criu

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestMessage(t *testing.T) {
	var m Message
	m.Int(PID, 300)
	m.Bool(LeaveRunning, true)
	m.Bool(ShellJob, false)
	m.Text(RootDir, "/r")
	m.Text(LogFile, "")
	m.Sub(ExtMount, Pair("/a", "/b"))
	m.Sub(InheritFD, Numbered("pipe:[1]", 2))
	m.Int(OrphanPtsMaster, -1)
	want := "\x10\xac\x02" + "\x18\x01" + "\x6a\x02/r" + "\xba\x01\x08\x0a\x02/a\x12\x02/b" + "\xda\x01\x0c\x0a\x08pipe:[1]\x10\x02" +
		"\x90\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
	if string(m.b) != want {
		t.Errorf("got  %q\nwant %q", m.b, want)
	}
}

func TestAnswer(t *testing.T) {
	a, err := parseAnswer([]byte("\x08\x06\x10\x01\x2a\x11\x0a\x0cpost-restore\x10\xac\x02"))
	if err != nil || a.kind != notify || !a.success || a.notice.Script != "post-restore" || a.notice.PID != 300 {
		t.Errorf("%+v, %v", a, err)
	}
	a, err = parseAnswer([]byte("\x08\x0a\x10\x01\x52\x04\x08\x03\x10\x11"))
	if err != nil || a.number != 31700 {
		t.Errorf("%+v, %v", a, err)
	}
	a, err = parseAnswer([]byte("\x08\x02\x10\x00\x38\x02"))
	if err != nil || a.success || !strings.Contains(a.err().Error(), "no such file") {
		t.Errorf("%+v, %v, %v", a, err, a.err())
	}
}

// table makes the file of a mount table.
func table(entries ...Message) []byte {
	b := binary.LittleEndian.AppendUint32(nil, magicCommon)
	b = binary.LittleEndian.AppendUint32(b, magicMounts)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(e.b)))
		b = append(b, e.b...)
	}
	return b
}

func entry(kind, id, parent int64, point, key string) Message {
	var m Message
	m.Int(1, kind)
	m.Int(2, id)
	m.Int(3, 7)
	m.Int(4, parent)
	m.Text(7, point)
	m.Text(18, key)
	return m
}

func TestMounts(t *testing.T) {
	got, err := parseMounts(table(entry(0, 1, 0, "./", ""), entry(5, 2, 1, "./dev", ""), entry(0, 3, 1, "/x/../data", "/data")))
	want := []Mount{{ID: 1, Device: 7, Point: "/"}, {Type: "tmpfs", ID: 2, Parent: 1, Device: 7, Point: "/dev"},
		{ID: 3, Parent: 1, Device: 7, Point: "/data", External: true, Key: "/data"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, b := range map[string][]byte{
		"empty": nil, "magic": []byte("12345678"), "cut": table(entry(5, 1, 0, "/", ""))[:12], "file system": table(entry(99, 1, 0, "/", "")),
		"NUL": table(entry(5, 1, 0, "/a\x00b", "")),
	} {
		if m, err := parseMounts(b); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestComplaint(t *testing.T) {
	dir := t.TempDir()
	log := "(00.1) Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self: x\n(00.2) fine\n(00.3) Error (criu/a.c:2): Can't lookup mount=1\n" +
		"(00.4) Error (criu/cr-dump.c:3): Dumping FAILED.\n"
	if err := os.WriteFile(filepath.Join(dir, "log"), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := Complaint(f, "log"); got != "Can't lookup mount=1" {
		t.Errorf("%q", got)
	}
	if err := os.Symlink("log", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if got := Complaint(f, "link"); got != "" {
		t.Errorf("through a link: %q", got)
	}
}

// FuzzMounts: whatever a checkpoint's file says, reading it ends, and mount points are absolute and clean.
func FuzzMounts(f *testing.F) {
	f.Add(table(entry(0, 1, 0, "./", ""), entry(5, 2, 1, "./dev", "k")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseMounts(b)
		for _, m := range list {
			if err == nil && m.Point != "" && (!filepath.IsAbs(m.Point) || filepath.Clean(m.Point) != m.Point) {
				t.Fatalf("mount point %q", m.Point)
			}
		}
		parseAnswer(b)
	})
}

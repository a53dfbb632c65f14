package systemd

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
)

func TestAddresses(t *testing.T) {
	env := map[string]string{"XDG_RUNTIME_DIR": "/run/user/7", "DBUS_SESSION_BUS_ADDRESS": "tcp:host=x;unix:path=/run/a%20b,guid=1;unix:abstract=q",
		"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=%zz"}
	get := func(k string) string { return env[k] }
	want := []Address{{"/run/user/7/systemd/private", false}, {"/run/a b", true}, {"@q", true}}
	if got := Addresses(true, 7, get); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	want = []Address{{"/run/systemd/private", false}, {"/run/dbus/system_bus_socket", true}}
	if got := Addresses(false, 0, get); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

// TestEncode checks header, alignment and that what is written can be read.
func TestEncode(t *testing.T) {
	var e encoder
	e.properties([]plan.Property{{Name: "A", Type: "t", Value: uint64(5)}, {Name: "B", Type: "as", Value: plan.Array{"x"}}})
	c := call{dest: "d", path: "/", iface: "i", member: "m", sig: "a(sv)", body: e.buf}
	got := hex.EncodeToString(c.encode(9))
	if m, ok := parse(c.encode(9)); !ok || m.kind != methodCall || m.member != "m" || m.signature != "a(sv)" {
		t.Errorf("does not parse: %+v", m)
	}
	if n := len(got) / 2; n%8 != len(e.buf)%8 {
		t.Errorf("%d bytes: the body is not aligned", n)
	}
	if !strings.HasPrefix(got, "6c010001"+hex.EncodeToString([]byte{byte(len(e.buf)), 0, 0, 0})+"09000000") {
		t.Errorf("%s", got)
	}
}

func signal(member, sig string, body func(*encoder)) []byte {
	var b encoder
	body(&b)
	var e encoder
	e.buf = append(e.buf, 'l', signalKind, 0, 1)
	e.u32(uint32(len(b.buf)))
	e.u32(77)
	e.array(8, func() {
		for _, f := range []struct {
			code       byte
			sig, value string
		}{{fieldPath, "o", managerPath}, {fieldInterface, "s", managerInterface}, {fieldMember, "s", member}} {
			e.align(8)
			e.byte(f.code)
			e.signature(f.sig)
			e.str(f.value)
		}
		e.align(8)
		e.byte(fieldSignature)
		e.signature("g")
		e.signature(sig)
	})
	e.align(8)
	return append(e.buf, b.buf...)
}

func reply(serial uint32, kind byte, errName, sig, text string) []byte {
	var b, e encoder
	b.str(text)
	e.buf = append(e.buf, 'l', kind, 0, 1)
	e.u32(uint32(len(b.buf)))
	e.u32(78)
	e.array(8, func() {
		e.byte(fieldReplySerial)
		e.signature("u")
		e.u32(serial)
		if errName != "" {
			e.align(8)
			e.byte(fieldError)
			e.signature("s")
			e.str(errName)
		}
		e.align(8)
		e.byte(fieldSignature)
		e.signature("g")
		e.signature(sig)
	})
	e.align(8)
	return append(e.buf, b.buf...)
}

// serve answers each call by what answer returns, and lets others' signals pass before.
func serve(t *testing.T, answer func(m message, serial uint32) []byte) []Address {
	t.Helper()
	file := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends when the test closes the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			peer, in := c, make([]byte, 0, 1<<16)
			fill := func() bool {
				buf := make([]byte, 4096)
				n, err := peer.Read(buf)
				in = append(in, buf[:n]...)
				return err == nil
			}
			for !bytes.Contains(in, []byte("DATA\r\n")) && fill() {
			}
			fmt.Fprint(peer, "DATA\r\nOK 1234\r\n")
			for !bytes.Contains(in, []byte("BEGIN\r\n")) && fill() {
			}
			_, in, _ = bytes.Cut(in, []byte("BEGIN\r\n"))
			for {
				for len(in) < 16 && fill() {
				}
				if len(in) < 16 {
					break
				}
				n, _ := sizes(in[:16])
				for len(in) < 16+n && fill() {
				}
				m, ok := parse(in[:16+n])
				if !ok {
					t.Error("a call that does not parse")
					break
				}
				serial := uint32(in[8])
				in = in[16+n:]
				if _, err := peer.Write(answer(m, serial)); err != nil {
					break
				}
			}
			peer.Close()
		}
	}()
	return []Address{{Path: file + ".none"}, {Path: file}}
}

func removed(job, result string) []byte {
	return signal("JobRemoved", "uoss", func(e *encoder) {
		e.u32(4)
		e.str(job)
		e.str("x.scope")
		e.str(result)
	})
}

func TestStart(t *testing.T) {
	var calls []string
	result, exists := "done", 0
	addresses := serve(t, func(m message, serial uint32) []byte {
		calls = append(calls, m.member)
		if m.member == "StartTransientUnit" && exists > 0 {
			exists--
			return reply(serial, methodError, unitExists, "s", "there is one")
		}
		job := reply(serial, methodReturn, "", "o", "/job/4")
		// The other job's end, ours before the answer: all orders must do.
		return append(append(removed("/job/3", "failed"), removed("/job/4", result)...), job...)
	})
	u := &plan.Unit{Name: "x.scope", Properties: []plan.Property{{Name: "Slice", Type: "s", Value: "a.slice"}}}
	start := func() error {
		c, err := Dial(addresses)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.Start(u, 7)
	}
	if err := start(); err != nil {
		t.Error(err)
	}
	exists = 1
	if err := start(); err != nil {
		t.Error(err)
	}
	exists = 2
	if err := start(); !errdef.Is(err, errdef.Conflict) {
		t.Errorf("a unit of that name: %v", err)
	}
	exists, result = 0, "failed"
	if err := start(); err == nil || !strings.Contains(err.Error(), `"failed"`) {
		t.Errorf("a job that failed: %v", err)
	}
	want := "StartTransientUnit StartTransientUnit ResetFailedUnit StartTransientUnit StartTransientUnit ResetFailedUnit StartTransientUnit StartTransientUnit"
	if got := strings.Join(calls, " "); got != want {
		t.Errorf("calls %s", got)
	}
	if _, err := Dial([]Address{{Path: "/nonexistent"}}); !errdef.Is(err, errdef.Unavailable) || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("no systemd: %v", err)
	}
}

// TestBus speaks to the real dbus-daemon: authentication, Hello, matches, and its word for a service that is not there.
func TestBus(t *testing.T) {
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("dbus-daemon (Debian package dbus-daemon) is not installed")
	}
	dir := t.TempDir()
	conf := `<busconfig><type>session</type><listen>unix:path=` + dir + `/bus</listen><policy context="default"><allow send_destination="*"/>` +
		`<allow own="*"/><allow receive_sender="*"/></policy></busconfig>`
	if err := os.WriteFile(dir+"/conf", []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(daemon, "--nofork", "--nosyslog", "--config-file="+dir+"/conf")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(dir + "/bus"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("dbus-daemon does not listen")
		}
	}
	_, err = Dial([]Address{{Path: dir + "/bus", Bus: true}})
	if err == nil || !strings.Contains(err.Error(), "ServiceUnknown") { // there is no systemd on this bus
		t.Errorf("%v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(removed("/job/1", "done"))
	f.Add(reply(1, methodError, unitExists, "s", "x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 16 {
			if n, ok := sizes(b[:16]); ok && (n < 0 || n > 2*maxMessage+8) {
				t.Fatalf("%d bytes to follow", n)
			}
		}
		if m, ok := parse(b); ok {
			ended(m, "/job/1")
			m.body.str()
		}
	})
}

func FuzzAddresses(f *testing.F) {
	f.Add("unix:path=/a%20,guid=1;unix:abstract=b")
	f.Fuzz(func(t *testing.T, s string) {
		for _, a := range busAddresses(s) {
			if a.Path == "" || strings.ContainsRune(a.Path, 0) {
				t.Fatalf("%q", a.Path)
			}
		}
	})
}

package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDegraded is torture case 27: whatever happens to meta.db, the engine starts, disturbs no container, removes nothing, lists what there
// is, and says so until a repair.
func TestDegraded(t *testing.T) {
	for name, spoil := range map[string]func(raw []byte) []byte{
		"cut in the middle": func(raw []byte) []byte { return raw[:len(raw)/2] },
		"a hit every 8 KiB": func(raw []byte) []byte {
			for i := 4096*2 + 100; i < len(raw); i += 8192 {
				copy(raw[i:], bytes.Repeat([]byte{0xee}, 64))
			}
			return raw
		},
		"both meta pages": func(raw []byte) []byte { clear(raw[:8192]); return raw },
		"empty":           func([]byte) []byte { return nil },
		"gone":            nil,
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			degraded(t, full(t), spoil)
		})
	}
}

func degraded(t *testing.T, w *world, spoil func([]byte) []byte) {
	w.Dhow("pull", "-q", "127.0.0.1:5000/app:1").OK()
	w.Dhow("volume", "create", "data").OK()
	w.Dhow("network", "create", "own").OK()
	w.Dhow("create", "--name", "resting", "-v", "data:/vol", bb, "sh", "-c", "echo rested; cat /vol/x").OK()
	w.Signal(os.Interrupt) // a backup has these
	w.Run()
	w.Dhow("run", "-d", "--name", "busy", "--label", "k=v", "-v", "data:/vol", bb, "sh", "-c", "echo kept > /vol/x; exec sleep 1000").OK()
	pid := w.Dhow("inspect", "-f", "{{.State.Pid}}", "busy").OK()
	images := sorted(w.Dhow("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}").OK())
	w.Kill()
	db := filepath.Join(w.DataRoot, "meta.db")
	if spoil == nil {
		os.Remove(db)
	} else {
		raw, err := os.ReadFile(db)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(db, spoil(raw), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look := func(when string) {
		t.Helper()
		if got := w.Dhow("inspect", "-f", `{{.State.Running}} {{.State.Pid}} {{index .Config.Labels "k"}}`, "busy").OK(); got != "true "+pid+" v" {
			t.Errorf("%s: busy is %s, its pid was %s", when, got, pid)
		}
		if got := w.Dhow("exec", "busy", "cat", "/vol/x").OK(); got != "kept" {
			t.Errorf("%s: %q", when, got)
		}
		if got := sorted(w.Dhow("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}").OK()); !slices.Equal(got, images) {
			t.Errorf("%s: images %v, there were %v", when, got, images)
		}
		w.Dhow("volume", "inspect", "data").OK()
		if got := w.Dhow("start", "-a", "resting").OK(); got != "rested\nkept" {
			t.Errorf("%s: resting says %q", when, got)
		}
		w.Dhow("network", "inspect", "own").OK()
	}
	for range 2 { // it stays so over a restart
		w.Run()
		look("degraded")
		if info := w.Dhow("info"); !strings.Contains(info.Err, "WARNING: degraded: ") {
			t.Errorf("info does not warn: %s", info.Err)
		}
		w.Kill()
	}
	w.Run()
	check := w.Dhow("system", "check")
	if check.Code != 1 || !strings.Contains(check.Out, "metadata meta.db (meta.db): ") || !strings.Contains(check.Out, ": dhow system check --repair puts the records that could be saved in its place") {
		t.Fatalf("%d %s", check.Code, check.Out)
	}
	if out := w.Dhow("system", "check", "--repair").OK(); !strings.Contains(out, "the saved records are meta.db now") {
		t.Error(out)
	}
	w.Dhow("system", "check").OK()
	w.Kill()
	w.Run()
	look("repaired")
	if info := w.Dhow("info"); strings.Contains(info.Err, "degraded") {
		t.Error(info.Err)
	}
	if old, _ := filepath.Glob(w.DataRoot + "/quarantine/*meta.db"); spoil != nil && len(old) != 1 {
		t.Errorf("in quarantine: %v", old)
	}
}

func sorted(s string) []string {
	l := lines(s)
	slices.Sort(l)
	return l
}

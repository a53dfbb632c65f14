package oci

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/oci/compile"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

var update = flag.Bool("update", false, "rewrite the listings of the scripts")

// script is one file of testdata/spec: a field of config.json, what the compiler makes of it on a known host, and what a container that is
// made of it for real sees. Its files:
//
//	config.json   merged over testConfig; lists are replaced; $BUNDLE stands for the bundle's folder
//	mounts.json   mounts added to those of the config
//	facts.json    merged over the known host's facts
//	grep          only lines of the listing with one of these words are kept (a line a word)
//	listing       what must be compiled, less what other fields change in it (normal), or
//	refused       the compiler's error
//	needs         what the machine must have for the rest: v1, v2, or a path
//	setup         a shell script run in the bundle's folder before, with BUNDLE and ROOTFS set
//	stdout, code  what the container prints and its exit code (0 when absent); neither: it is not run, and unreal says why
//	check         a shell script run in the bundle's folder afterwards, which must succeed
type script struct {
	path  string
	files map[string]string
	a     *txtar.Archive
}

func (s *script) has(name string) bool { _, ok := s.files[name]; return ok }

func loadScript(t *testing.T, path string) *script {
	t.Helper()
	a, err := txtar.ParseFile(path)
	check(t, err)
	s := &script{path: path, a: a, files: map[string]string{}}
	for _, f := range a.Files {
		switch f.Name {
		case "config.json", "mounts.json", "facts.json", "grep", "listing", "refused", "needs", "setup", "stdout", "code", "check", "unreal":
		default:
			t.Fatalf("%s: unknown file %q", path, f.Name)
		}
		s.files[f.Name] = string(f.Data)
	}
	return s
}

// Each field of the runtime spec: the listing that it compiles to, and the container that comes of it.
func TestSpecScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/spec/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			s := loadScript(t, file)
			t.Run("listing", s.golden)
			if !s.has("refused") {
				t.Run("real", s.real)
			}
		})
	}
}

// knownFacts are a host with a 6.18 kernel and hybrid cgroups, whatever machine this is.
func knownFacts() compile.Facts {
	return compile.Facts{Arch: "amd64", Major: 6, Minor: 18, LastCap: 40, Clone3: true, Stdio: [3]int{7, 8, 9}, Cgroup: plan.Layout{Mode: plan.Hybrid,
		Controllers: []plan.Controller{{Names: []string{"cpu"}, Mount: "/sys/fs/cgroup/cpu", Self: "/"}, {Names: []string{"memory"}, Mount: "/sys/fs/cgroup/memory", Self: "/"},
			{Names: []string{"devices"}, Mount: "/sys/fs/cgroup/devices", Self: "/"}},
		Unified: "/sys/fs/cgroup/unified", SelfUnified: "/"}}
}

func (s *script) configure(t *testing.T, spec *bundle.Spec, dir string) {
	t.Helper()
	check(t, json.Unmarshal([]byte(strings.ReplaceAll(s.files["config.json"], "$BUNDLE", dir)), spec))
	if s.has("mounts.json") {
		var more []specs.Mount
		check(t, json.Unmarshal([]byte(s.files["mounts.json"]), &more))
		spec.Mounts = append(spec.Mounts, more...)
	}
}

func (s *script) golden(t *testing.T) {
	in := compile.Input{ID: "demo", Bundle: "/b", CgroupPath: "/demo", Spec: &bundle.Spec{}, Facts: knownFacts()}
	check(t, json.Unmarshal([]byte(testConfig), in.Spec))
	s.configure(t, in.Spec, in.Bundle)
	if s.has("facts.json") {
		check(t, json.Unmarshal([]byte(s.files["facts.json"]), &in.Facts))
	}
	name, got := "listing", ""
	if p, err := compile.Compile(in); err != nil {
		name, got = "refused", err.Error()+"\n"
	} else {
		for line := range strings.Lines(p.String()) {
			if strings.TrimSpace(s.files["grep"]) == "" || containsAny(line, strings.Split(strings.TrimSpace(s.files["grep"]), "\n")) {
				got += line
			}
		}
		got = normal(got)
	}
	if *update {
		kept := s.a.Files[:0:0]
		for _, f := range s.a.Files {
			if f.Name != "listing" && f.Name != "refused" {
				kept = append(kept, f)
			}
		}
		s.a.Files = append(kept, txtar.File{Name: name, Data: []byte(got)})
		check(t, os.WriteFile(s.path, txtar.Format(s.a), 0o644))
		return
	}
	if want := s.files[name]; got != want || got == "" {
		t.Errorf("%s differs (run with -update to rewrite):\n--- got\n%s--- want\n%s", name, got, want)
	}
}

// normal takes out of a listing what other fields' instructions change: numbers, where jumps lead, registers (named anew in their order), and
// the width of columns.
func normal(listing string) string {
	names := map[string]string{}
	listing = regexp.MustCompile(`(?m)^ *[0-9]+ `).ReplaceAllString(listing, "")
	listing = regexp.MustCompile(`(->|else |jump )[0-9]+`).ReplaceAllString(listing, "${1}N")
	listing = regexp.MustCompile(`\br[0-9]+\b`).ReplaceAllStringFunc(listing, func(r string) string {
		if names[r] == "" {
			names[r] = fmt.Sprintf("r%d", len(names)+1)
		}
		return names[r]
	})
	return regexp.MustCompile(` +# +`).ReplaceAllString(listing, "  # ")
}

func containsAny(line string, words []string) bool {
	for _, w := range words {
		if strings.Contains(line, w) {
			return true
		}
	}
	return false
}

func (s *script) real(t *testing.T) {
	if s.has("unreal") {
		t.Skip(strings.TrimSpace(s.files["unreal"]))
	}
	if !s.has("stdout") && !s.has("code") {
		t.Fatal("neither stdout nor code, and unreal does not say why")
	}
	for _, need := range strings.Fields(s.files["needs"]) {
		if why := lacks(t, need); why != "" {
			t.Skip(why)
		}
	}
	b := newBox(t)
	s.configure(t, b.spec, b.dir)
	s.shell(t, b, "setup")
	out, code := b.run()
	if want := strings.TrimSpace(s.files["code"]); want == "" && code != 0 || want != "" && want != fmt.Sprint(code) {
		t.Errorf("exit code %d, want %q; it said: %s", code, want, out)
	}
	if s.has("stdout") && out != s.files["stdout"] {
		t.Errorf("the container printed\n%s--- want\n%s", out, s.files["stdout"])
	}
	s.shell(t, b, "check")
}

// shell runs one of the script's own shell scripts on the host, in the bundle's folder.
func (s *script) shell(t *testing.T, b *box, name string) {
	t.Helper()
	if !s.has(name) {
		return
	}
	cmd := exec.Command("sh", "-ec", s.files[name])
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "BUNDLE="+b.dir, "ROOTFS="+b.rootfs(), "ID="+b.id)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, bytes.TrimSpace(out))
	}
}

// lacks says why this machine cannot run a script that needs something.
func lacks(t *testing.T, need string) string {
	t.Helper()
	l, err := cgroup.Detect()
	check(t, err)
	switch {
	case need == "v1" && l.Mode == plan.V2:
		return "needs cgroups v1"
	case need == "v2" && l.Mode != plan.V2:
		return "needs cgroups v2"
	case strings.HasPrefix(need, "/"):
		if _, err := os.Stat(need); err != nil {
			return "needs " + need
		}
	case need != "v1" && need != "v2":
		t.Fatalf("unknown need %q", need)
	}
	return ""
}

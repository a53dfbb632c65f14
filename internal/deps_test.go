package internal

import (
	"bytes"
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

//go:embed law.txt
var lawText string

const module = "github.com/dhow-containers/dhow/"

// The widths: the widest thing in a house decides whether one can live in it.
const (
	mostMethods = 25
	mostFields  = 25
	mostImports = 12
	mostCmd     = 120 // lines of a program's main package
)

type rule struct {
	from string
	to   []string
}

func parseLaw(t *testing.T) []rule {
	var rules []rule
	for _, line := range strings.Split(lawText, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		from, to, ok := strings.Cut(line, ":")
		if !ok {
			t.Fatalf("law: no colon in %q", line)
		}
		rules = append(rules, rule{strings.TrimSpace(from), strings.Fields(to)})
	}
	return rules
}

func matches(pattern, pkg string) bool {
	if pattern == "..." {
		return true
	}
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	return pattern == pkg
}

// source is one parsed, non-test Go file.
type source struct {
	pkg, name string
	file      *ast.File
}

// packages parses every Go file of the module except tests, by folder.
func packages(t *testing.T) (map[string][]source, *token.FileSet) {
	t.Helper()
	fset := token.NewFileSet()
	out := map[string][]source{}
	for _, root := range []string{".", "../cmd"} {
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && (d.Name() == "testdata" || d.Name() == "rootfs") {
				return filepath.SkipDir
			}
			if d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
				return nil
			}
			f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
			if err != nil {
				return err
			}
			if ignored(f) {
				return nil
			}
			dir := path.Clean(filepath.ToSlash(filepath.Dir(p)))
			out[dir] = append(out[dir], source{pkg: dir, name: filepath.Base(p), file: f})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out, fset
}

// ignored tells a generator program (//go:build ignore) from a file of its package.
func ignored(f *ast.File) bool {
	for _, g := range f.Comments {
		for _, c := range g.List {
			if c.Pos() < f.Package && strings.HasPrefix(c.Text, "//go:build ignore") {
				return true
			}
		}
	}
	return false
}

func imports(s source) []string {
	var out []string
	for _, i := range s.file.Imports {
		out = append(out, strings.Trim(i.Path.Value, `"`))
	}
	return out
}

func TestLawOfImports(t *testing.T) {
	rules := parseLaw(t)
	all, _ := packages(t)
	for pkg, files := range all {
		if strings.HasPrefix(pkg, "..") || pkg == "." {
			continue // programs wire; this package is the law itself
		}
		var mine *rule
		for i := range rules {
			if matches(rules[i].from, pkg) {
				mine = &rules[i]
				break
			}
		}
		if mine == nil {
			t.Errorf("%s: no floor: give it a line in law.txt", pkg)
			continue
		}
		for _, s := range files {
			for _, imp := range imports(s) {
				ours, ok := strings.CutPrefix(imp, module+"internal/")
				if ok && !allowed(mine.to, ours) {
					t.Errorf("%s/%s imports %s: the law allows only %v", pkg, s.name, ours, mine.to)
				}
			}
		}
	}
}

func allowed(patterns []string, pkg string) bool {
	for _, p := range patterns {
		if p != "-" && matches(p, pkg) {
			return true
		}
	}
	return false
}

// Some packages may not reach certain others at all.
func TestForbiddenImports(t *testing.T) {
	forbidden := map[string][]string{
		"oci/compile": {"os", "net", "syscall", "golang.org/x/sys/unix", "io/fs", "time"},
		"oci/prog":    {"os", "net", "syscall", "golang.org/x/sys/unix"},
		"oci/interp":  {"fmt", "os", "log", "log/slog", "reflect"},
	}
	all, _ := packages(t)
	for pkg, list := range forbidden {
		for _, s := range all[pkg] {
			for _, imp := range imports(s) {
				for _, bad := range list {
					if imp == bad {
						t.Errorf("%s/%s imports %s", pkg, s.name, bad)
					}
				}
			}
		}
	}
	for pkg, files := range all {
		for _, s := range files {
			for _, imp := range imports(s) {
				if imp == module+"internal/oci/interp" && pkg != "oci" && pkg != "shim" {
					t.Errorf("%s/%s imports oci/interp: only the light shim may clone containers", pkg, s.name)
				}
			}
		}
	}
}

// The shim and the runtime start in a millisecond and weigh a few MiB: heavy packages may not come in, not even by others.
func TestLightPrograms(t *testing.T) {
	for _, p := range []string{"./cmd/dhow-shim", "./cmd/dhow-runtime"} {
		cmd := exec.Command("go", "list", "-deps", p)
		cmd.Dir = ".."
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list %s: %v", p, err)
		}
		for _, dep := range strings.Fields(string(out)) {
			for _, bad := range []string{"net/http", "google.golang.org/grpc", "go.etcd.io/bbolt", "crypto/tls", "github.com/spf13/cobra"} {
				if dep == bad || strings.HasPrefix(dep, bad+"/") {
					t.Errorf("%s depends on %s", p, dep)
				}
			}
		}
	}
}

func TestUnsafeStaysAtTheDoor(t *testing.T) {
	all, _ := packages(t)
	for pkg, files := range all {
		for _, s := range files {
			atDoor := strings.HasSuffix(s.name, "_unsafe.go") && (strings.HasPrefix(pkg, "linux/") || pkg == "oci/interp")
			for _, imp := range imports(s) {
				if imp == "unsafe" && !atDoor {
					t.Errorf("%s/%s imports unsafe", pkg, s.name)
				}
			}
			ast.Inspect(s.file, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok || atDoor {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); ok && (x.Name == "syscall" || x.Name == "unix") && strings.HasPrefix(sel.Sel.Name, "RawSyscall") {
					t.Errorf("%s/%s calls %s.%s", pkg, s.name, x.Name, sel.Sel.Name)
				}
				return true
			})
		}
	}
}

// No external program touches a container's bytes: who starts processes at all is listed here, with what they start.
func TestWhoExecutes(t *testing.T) {
	starts := map[string]string{
		"engine/apparmor":         "apparmor_parser, with our own profile",
		"engine/container/keeper": "dhow-shim",
		"face/cli":                "dhowd, credential helpers of the user",
		"linux/jail":              "dhowd itself, locked in, to make files of a stranger's bytes",
		"oci":                     "hooks of config.json",
		"face/runtime":            "the host's ps, for the command of that name",
		"oci/criu":                "criu",
	}
	all, _ := packages(t)
	for pkg, files := range all {
		if starts[pkg] != "" || strings.HasPrefix(pkg, "testkit/") || strings.HasPrefix(pkg, "bench") {
			continue
		}
		for _, s := range files {
			for _, imp := range imports(s) {
				if imp == "os/exec" {
					t.Errorf("%s/%s imports os/exec", pkg, s.name)
				}
			}
			ast.Inspect(s.file, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok {
					switch sel.Sel.Name {
					case "StartProcess", "ForkExec", "Execve":
						t.Errorf("%s/%s uses %s", pkg, s.name, sel.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

func TestWidth(t *testing.T) {
	all, fset := packages(t)
	for pkg, files := range all {
		methods := map[string]int{}
		ours := map[string]bool{}
		lines := 0
		for _, s := range files {
			for _, imp := range imports(s) {
				if strings.HasPrefix(imp, module) {
					ours[imp] = true
				}
			}
			lines += fset.Position(s.file.End()).Line
			ast.Inspect(s.file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					if n.Recv != nil {
						methods[receiver(n)]++
					}
				case *ast.TypeSpec:
					if st, ok := n.Type.(*ast.StructType); ok && st.Fields.NumFields() > mostFields {
						t.Errorf("%s: struct %s has %d fields, more than %d", pkg, n.Name.Name, st.Fields.NumFields(), mostFields)
					}
				}
				return true
			})
		}
		for typ, n := range methods {
			if n > mostMethods {
				t.Errorf("%s: type %s has %d methods, more than %d", pkg, typ, n, mostMethods)
			}
		}
		isCmd := strings.HasPrefix(pkg, "../cmd/")
		if len(ours) > mostImports && !isCmd {
			t.Errorf("%s imports %d of our packages, more than %d: %v", pkg, len(ours), mostImports, sorted(ours))
		}
		if isCmd && strings.Count(pkg, "/") == 2 && lines > mostCmd && pkg != "../cmd/hello" {
			t.Errorf("%s has %d lines, more than %d: programs only wire", pkg, lines, mostCmd)
		}
	}
}

func receiver(f *ast.FuncDecl) string {
	typ := f.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.Ident:
			return x.Name
		default:
			return fmt.Sprintf("%T", typ)
		}
	}
}

func sorted(m map[string]bool) []string {
	var out []string
	for k := range m {
		out = append(out, strings.TrimPrefix(k, module+"internal/"))
	}
	sort.Strings(out)
	return out
}

// Every package says what it owns, what it promises and what it must never do.
func TestPackageComments(t *testing.T) {
	all, _ := packages(t)
	for pkg, files := range all {
		var doc bytes.Buffer
		for _, s := range files {
			if s.file.Doc != nil {
				doc.WriteString(s.file.Doc.Text())
			}
			for _, d := range s.file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
					t.Errorf("%s/%s has an init function", pkg, s.name)
				}
			}
		}
		if doc.Len() == 0 {
			t.Errorf("%s: no package comment", pkg)
			continue
		}
		if strings.HasPrefix(pkg, "../cmd") {
			continue
		}
		for _, word := range []string{"promise", "never"} {
			if !strings.Contains(doc.String(), word) {
				t.Errorf("%s: the package comment does not say what it %ss", pkg, word)
			}
		}
	}
}

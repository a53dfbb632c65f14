package internal

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pages are the documents of the repository, by path from its root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../docs/*/*.md"} {
		list, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			out[p] = string(b)
		}
	}
	if len(out) == 0 {
		t.Fatal("no documents found")
	}
	return out
}

var link = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)

// TestLinks: what a page links to within the repository is there.
func TestLinks(t *testing.T) {
	for page, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: link to %s: %v", page, m[1], err)
			}
		}
	}
}

var named = regexp.MustCompile("`([a-z0-9/]*)\\.((?:Test|Fuzz|Benchmark)\\w+)`")

// TestNamedTests: the tests that docs/security.md names are there.
func TestNamedTests(t *testing.T) {
	have := map[string]bool{}
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(p)), ".")
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok {
				have[dir+"."+fn.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	list := named.FindAllStringSubmatch(pages(t)["../docs/security.md"], -1)
	if len(list) < 100 {
		t.Errorf("docs/security.md names %d tests; is it still read right?", len(list))
	}
	for _, m := range list {
		if !have[m[1]+"."+m[2]] {
			t.Errorf("docs/security.md names %s.%s, which is not there", m[1], m[2])
		}
	}
}

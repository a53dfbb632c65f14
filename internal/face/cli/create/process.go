package create

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// process is what runs: words, user, folder, environment, terminal.
type process struct {
	attach     []string
	env        []string
	envFiles   []string
	labels     []string
	labelFiles []string
	groups     []string
	user       string
	workdir    string
	entrypoint string
	hostname   string
	domain     string
	annotation []string
	tty, stdin bool
}

func (p *process) add(fs *pflag.FlagSet) {
	fs.VarP(&attachValue{&p.attach}, "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	fs.StringArrayVarP(&p.env, "env", "e", nil, "Set environment variables (K=V, or K to take it from here)")
	fs.StringArrayVar(&p.envFiles, "env-file", nil, "Read environment variables from a file")
	fs.StringArrayVarP(&p.labels, "label", "l", nil, "Set labels on the container")
	fs.StringArrayVar(&p.labelFiles, "label-file", nil, "Read labels from a file")
	fs.StringArrayVar(&p.groups, "group-add", nil, "Run with additional groups")
	fs.StringVarP(&p.user, "user", "u", "", "User or UID, with an optional group (name|uid[:group|gid])")
	fs.StringVarP(&p.workdir, "workdir", "w", "", "Working directory inside the container")
	fs.StringVar(&p.entrypoint, "entrypoint", "", "Replace the image's entrypoint")
	fs.StringVarP(&p.hostname, "hostname", "h", "", "Host name of the container")
	fs.StringVar(&p.domain, "domainname", "", "NIS domain name of the container")
	fs.StringArrayVar(&p.annotation, "annotation", nil, "Add an annotation for the OCI runtime (K=V)")
	fs.BoolVarP(&p.tty, "tty", "t", false, "Allocate a terminal")
	fs.BoolVarP(&p.stdin, "interactive", "i", false, "Keep standard input open")
}

func (p *process) apply(b *request) (err error) {
	c := b.config
	if c.Env, err = collect(b.env, "--env", p.envFiles, p.env, true); err != nil {
		return err
	}
	labels, err := collect(b.env, "--label", p.labelFiles, p.labels, false)
	if err != nil {
		return err
	}
	c.Labels = pairs(labels)
	for _, a := range p.annotation {
		if k, _, ok := strings.Cut(a, "="); !ok || strings.TrimSpace(k) == "" {
			return fmt.Errorf("--annotation %q: want key=value", a)
		}
	}
	b.host.Annotations = pairs(p.annotation)
	b.host.GroupAdd = p.groups
	c.User, c.WorkingDir, c.Hostname, c.Domainname = p.user, p.workdir, p.hostname, p.domain
	switch {
	case p.entrypoint != "":
		c.Entrypoint = []string{p.entrypoint}
	case b.fs.Changed("entrypoint"):
		c.Entrypoint = []string{""} // an empty value takes the image's entrypoint away
	}
	c.Tty, c.OpenStdin = p.tty, p.stdin
	c.AttachStdin = p.stdin
	for _, a := range p.attach {
		switch a {
		case "stdin":
			c.AttachStdin = true
		case "stdout":
			c.AttachStdout = true
		case "stderr":
			c.AttachStderr = true
		}
	}
	if len(p.attach) == 0 {
		c.AttachStdout, c.AttachStderr = true, true
	}
	c.StdinOnce = c.OpenStdin && c.AttachStdin
	return nil
}

// collect joins the lines of files and the words of flags, files first, later ones winning at the reader. With inherit, a
// bare KEY takes its value from the environment.
func collect(env Env, flag string, files, words []string, inherit bool) ([]string, error) {
	var out []string
	for _, name := range files {
		lines, err := fileLines(env, flag, name, inherit)
		if err != nil {
			return nil, err
		}
		out = append(out, lines...)
	}
	for _, w := range words {
		k, _, ok := strings.Cut(w, "=")
		if strings.TrimSpace(k) == "" && (ok || w == "") {
			return nil, fmt.Errorf("%s %q: the key is empty", flag, w)
		}
		if !ok && inherit {
			if v, found := env.LookupEnv(w); found {
				w += "=" + v
			}
		}
		out = append(out, w)
	}
	return out, nil
}

// fileLines reads KEY=VALUE lines; empty lines and lines that start with # do not count.
func fileLines(env Env, flag, name string, inherit bool) ([]string, error) {
	data, err := env.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%s-file: %w", flag, err)
	}
	var out []string
	text := strings.TrimPrefix(string(data), "\ufeff")
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		k, _, ok := strings.Cut(line, "=")
		if k == "" {
			return nil, fmt.Errorf("%s-file %s: line %d: the key is empty", flag, name, i+1)
		}
		if strings.ContainsAny(k, " \t") {
			return nil, fmt.Errorf("%s-file %s: line %d: the key %q contains whitespace", flag, name, i+1, k)
		}
		if !ok && inherit {
			v, found := env.LookupEnv(k)
			if !found {
				continue
			}
			line += "=" + v
		}
		out = append(out, line)
	}
	return out, nil
}

// pairs makes a map of K=V words; a bare K has the empty value.
func pairs(words []string) map[string]string {
	if len(words) == 0 {
		return nil
	}
	m := make(map[string]string, len(words))
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		m[k] = v
	}
	return m
}

type attachValue struct{ list *[]string }

func (v *attachValue) String() string { return "" }
func (v *attachValue) Type() string   { return "list" }
func (v *attachValue) Set(s string) error {
	switch l := strings.ToLower(s); l {
	case "stdin", "stdout", "stderr":
		*v.list = append(*v.list, l)
		return nil
	}
	return fmt.Errorf("want stdin, stdout or stderr")
}

// Environment joins --env-file and --env the way run does.
func Environment(env Env, files, words []string) ([]string, error) {
	return collect(env, "--env", files, words, true)
}

// Pairs makes a map of K=V words, nil when there are none.
func Pairs(words []string) map[string]string { return pairs(words) }

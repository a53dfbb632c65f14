package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/face/cli/format"
	"github.com/dhow-containers/dhow/internal/linux/tty"
)

var errTagWithAll = errors.New("--all-tags contradicts a tag or digest")

// hubKey is the name under which config.json keeps the credentials of docker.io.
const hubKey = "https://index.docker.io/v1/"

func authKey(host string) string {
	switch host {
	case "", "docker.io", "index.docker.io", "registry-1.docker.io":
		return hubKey
	}
	return host
}

// configFile is config.json; keys dhow does not know are kept as they are.
type configFile struct {
	path string
	all  map[string]json.RawMessage
}

type storedAuth struct {
	Auth          string `json:"auth,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
}

func (a *app) config() (*configFile, error) {
	dir := a.configDir
	if dir == "" {
		dir = a.getenv("DOCKER_CONFIG")
	}
	if dir == "" {
		home := a.getenv("HOME")
		if home == "" {
			home = "/root"
		}
		dir = filepath.Join(home, ".docker")
	}
	c := &configFile{path: filepath.Join(dir, "config.json"), all: map[string]json.RawMessage{}}
	b, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read client config: %w", err)
	}
	if err := json.Unmarshal(b, &c.all); err != nil {
		return nil, fmt.Errorf("read client config %s: %w", c.path, err)
	}
	return c, nil
}

func (c *configFile) get(key string, into any) error {
	if raw, ok := c.all[key]; ok {
		if err := json.Unmarshal(raw, into); err != nil {
			return fmt.Errorf("client config %s: %s: %w", c.path, key, err)
		}
	}
	return nil
}

func (c *configFile) save() error {
	b, err := json.MarshalIndent(c.all, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.path), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(c.path, append(b, '\n'), 0o600)
}

// helper returns the credential helper for a server, or "".
func (c *configFile) helper(server string) (string, error) {
	var store string
	helpers := map[string]string{}
	if err := errors.Join(c.get("credsStore", &store), c.get("credHelpers", &helpers)); err != nil {
		return "", err
	}
	if h := helpers[server]; h != "" {
		return h, nil
	}
	return store, nil
}

// askHelper runs docker-credential-NAME: the protocol is a verb as its word, JSON or a server on stdin, JSON on stdout.
func askHelper(ctx context.Context, name, verb string, in []byte) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "docker-credential-"+name, verb)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		text := strings.TrimSpace(string(out))
		if strings.Contains(text, "credentials not found") {
			return nil, nil
		}
		return nil, fmt.Errorf("docker-credential-%s %s: %w %s", name, verb, err, text)
	}
	return out, nil
}

// auth finds the stored credentials of a registry host; nil when there are none.
func (a *app) auth(ctx context.Context, host string) (*registry.AuthConfig, error) {
	c, err := a.config()
	if err != nil {
		return nil, err
	}
	server := authKey(host)
	helper, err := c.helper(server)
	if err != nil {
		return nil, err
	}
	if helper != "" {
		out, err := askHelper(ctx, helper, "get", []byte(server))
		if err != nil || out == nil {
			return nil, err
		}
		var got struct{ Username, Secret string }
		if err := json.Unmarshal(out, &got); err != nil {
			return nil, fmt.Errorf("docker-credential-%s get: %w", helper, err)
		}
		ac := &registry.AuthConfig{ServerAddress: server, Username: got.Username, Password: got.Secret}
		if got.Username == "<token>" {
			ac.Username, ac.Password, ac.IdentityToken = "", "", got.Secret
		}
		return ac, nil
	}
	auths := map[string]storedAuth{}
	if err := c.get("auths", &auths); err != nil {
		return nil, err
	}
	s, ok := auths[server]
	for _, alias := range []string{"https://" + server, "http://" + server, "https://" + server + "/v2/"} {
		if !ok {
			s, ok = auths[alias]
		}
	}
	if !ok {
		return nil, nil
	}
	ac := &registry.AuthConfig{ServerAddress: server, Username: s.Username, Password: s.Password,
		IdentityToken: s.IdentityToken, RegistryToken: s.RegistryToken}
	if s.Auth != "" {
		b, err := base64.StdEncoding.DecodeString(s.Auth)
		user, pass, ok := strings.Cut(strings.TrimRight(string(b), "\x00"), ":")
		if err != nil || !ok {
			return nil, fmt.Errorf("client config %s: auths: the entry of %s is not base64 of user:password", c.path, server)
		}
		ac.Username, ac.Password = user, pass
	}
	return ac, nil
}

func (a *app) authHeader(ctx context.Context, h http.Header, host string) error {
	ac, err := a.auth(ctx, host)
	if err != nil || ac == nil {
		return err
	}
	b, err := json.Marshal(ac)
	if err != nil {
		return err
	}
	h.Set(registry.AuthHeader, base64.URLEncoding.EncodeToString(b))
	return nil
}

func cmdLogin(a *app) *cobra.Command {
	var user, pass string
	var fromStdin bool
	c := words("login [SERVER]", "Log in to a registry", "dhow login registry.example:5000 -u me --password-stdin < token", maxArgs(1),
		func(c *cobra.Command, args []string) error {
			host := "docker.io"
			if len(args) == 1 {
				host = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(args[0], "https://"), "http://"), "/")
			}
			if fromStdin {
				if user == "" || pass != "" {
					return usage(c, exitError, errors.New("--password-stdin needs --username and excludes --password"))
				}
				b, err := io.ReadAll(io.LimitReader(a.Stdin, 1<<20))
				if err != nil {
					return err
				}
				pass = strings.TrimRight(string(b), "\r\n")
			}
			var err error
			if user == "" {
				if user, err = a.ask("Username: ", false); err != nil {
					return err
				}
			}
			if pass == "" {
				if pass, err = a.ask("Password: ", true); err != nil {
					return err
				}
			}
			return login(a, c.Context(), &registry.AuthConfig{Username: user, Password: pass, ServerAddress: authKey(host)})
		})
	c.Flags().StringVarP(&user, "username", "u", "", "User name")
	c.Flags().StringVarP(&pass, "password", "p", "", "Password (others can see it in the process list; use --password-stdin)")
	c.Flags().BoolVar(&fromStdin, "password-stdin", false, "Read the password from standard input")
	return c
}

func login(a *app, ctx context.Context, ac *registry.AuthConfig) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	var resp registry.AuthResponse
	if err := api.Post(ctx, "/auth", nil, ac, &resp); err != nil {
		return err
	}
	c, err := a.config()
	if err != nil {
		return err
	}
	helper, err := c.helper(ac.ServerAddress)
	if err != nil {
		return err
	}
	if helper != "" {
		user, secret := ac.Username, ac.Password
		if resp.IdentityToken != "" {
			user, secret = "<token>", resp.IdentityToken
		}
		in, err := json.Marshal(struct{ ServerURL, Username, Secret string }{ac.ServerAddress, user, secret})
		if err != nil {
			return err
		}
		if _, err := askHelper(ctx, helper, "store", in); err != nil {
			return err
		}
	} else if err := c.store(ac, resp.IdentityToken); err != nil {
		return fmt.Errorf("save credentials: %w", err)
	} else {
		fmt.Fprintf(a.Stderr, "The credentials are in %s, not encrypted.\n", c.path)
	}
	a.out(format.Safe(resp.Status))
	return nil
}

func (c *configFile) store(ac *registry.AuthConfig, token string) error {
	auths := map[string]json.RawMessage{}
	if err := c.get("auths", &auths); err != nil {
		return err
	}
	s := storedAuth{Auth: base64.StdEncoding.EncodeToString([]byte(ac.Username + ":" + ac.Password))}
	if token != "" {
		s.Auth, s.IdentityToken = base64.StdEncoding.EncodeToString([]byte(ac.Username+":")), token
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	auths[ac.ServerAddress] = raw
	if c.all["auths"], err = json.Marshal(auths); err != nil {
		return err
	}
	return c.save()
}

func cmdLogout(a *app) *cobra.Command {
	return words("logout [SERVER]", "Log out from a registry", "dhow logout registry.example:5000", maxArgs(1),
		func(c *cobra.Command, args []string) error {
			host := "docker.io"
			if len(args) == 1 {
				host = args[0]
			}
			server := authKey(host)
			cf, err := a.config()
			if err != nil {
				return err
			}
			helper, err := cf.helper(server)
			if err != nil {
				return err
			}
			if helper != "" {
				_, err := askHelper(c.Context(), helper, "erase", []byte(server))
				return err
			}
			auths := map[string]json.RawMessage{}
			if err := cf.get("auths", &auths); err != nil {
				return err
			}
			if _, ok := auths[server]; !ok {
				a.out("Not logged in to " + host)
				return nil
			}
			delete(auths, server)
			if cf.all["auths"], err = json.Marshal(auths); err != nil {
				return err
			}
			a.out("Removing login credentials for " + host)
			return cf.save()
		})
}

// ask reads a line from the terminal, without echo when it is a secret.
func (a *app) ask(prompt string, secret bool) (string, error) {
	fd := int(a.Stdin.Fd())
	if !tty.IsTerminal(fd) {
		return "", errors.New("standard input is not a terminal; use --username and --password-stdin")
	}
	fmt.Fprint(a.Stderr, prompt)
	if secret {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return "", err
		}
		quiet := *t
		quiet.Lflag &^= unix.ECHO
		if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
			return "", err
		}
		restore := func() error { return unix.IoctlSetTermios(fd, unix.TCSETS, t) }
		defer restore()
		defer restoreOnSignal(restore)()
		defer fmt.Fprintln(a.Stderr)
	}
	line, err := bufio.NewReader(io.LimitReader(a.Stdin, 4096)).ReadString('\n')
	if err != nil && line == "" {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

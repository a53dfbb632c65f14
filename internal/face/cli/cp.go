package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/client"
	"github.com/dhow-containers/dhow/internal/face/cli/format"
	"github.com/dhow-containers/dhow/internal/face/cli/tarball"
	"github.com/dhow-containers/dhow/internal/linux/tty"
)

// transfer is one run of cp.
type transfer struct {
	a       *app
	ctx     context.Context
	api     *client.Client
	ref     string // the container
	inside  string // the path in it
	outside string // the local one, or -
	follow  bool
	archive bool
	quiet   bool
}

func cmdCp(a *app) *cobra.Command {
	t := transfer{a: a}
	c := words("cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n  dhow cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH", "Copy files between a container and this machine",
		"dhow cp web:/var/log/app.log .\ndhow cp site/. web:/srv\ntar c etc | dhow cp - web:/", exactArgs(2), func(c *cobra.Command, args []string) error {
			if args[0] == "" {
				return errors.New("source can not be empty")
			}
			if args[1] == "" {
				return errors.New("destination can not be empty")
			}
			if !c.Flags().Changed("quiet") {
				t.quiet = !tty.IsTerminal(int(a.Stdout.Fd()))
			}
			from, src := sides(args[0])
			to, dst := sides(args[1])
			var err error
			if t.api, err = a.client(); err != nil {
				return err
			}
			t.ctx = c.Context()
			switch {
			case from != "" && to != "":
				return errors.New("copying between containers is not supported")
			case from != "":
				t.ref, t.inside, t.outside = from, src, dst
				return t.out()
			case to != "":
				t.ref, t.inside, t.outside = to, dst, src
				return t.in()
			}
			return errors.New("must specify at least one container source")
		})
	c.Flags().BoolVarP(&t.follow, "follow-link", "L", false, "Copy what a link at the end of SRC_PATH leads to")
	c.Flags().BoolVarP(&t.archive, "archive", "a", false, "Into a container: everything becomes its user's, where it has one; out: owners are kept")
	c.Flags().BoolVarP(&t.quiet, "quiet", "q", false, "Say nothing (also when stdout is no terminal)")
	return c
}

// sides splits CONTAINER:PATH; a path that begins with a slash or a dot is local.
func sides(arg string) (ref, p string) {
	ref, p, ok := strings.Cut(arg, ":")
	if filepath.IsAbs(arg) || !ok || strings.HasPrefix(ref, ".") {
		return "", arg
	}
	return ref, p
}

func (t *transfer) query() url.Values { return url.Values{"path": {filepath.ToSlash(t.inside)}} }

// stat asks what a path in the container is.
func (t *transfer) stat(p string) (st container.PathStat, err error) {
	resp, err := t.api.Open(t.ctx, http.MethodHead, containerPath(t.ref, "/archive"), url.Values{"path": {p}}, nil, nil)
	if err != nil {
		return st, err
	}
	resp.Body.Close()
	return readStat(resp)
}

func readStat(resp *http.Response) (st container.PathStat, err error) {
	b, err := base64.StdEncoding.DecodeString(resp.Header.Get("X-Docker-Container-Path-Stat"))
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		return st, fmt.Errorf("decode the engine's answer: %w", err)
	}
	return st, nil
}

// target is where a link in the container leads, seen from the link's path.
func target(p, link string) string {
	if path.IsAbs(link) {
		return link
	}
	dir, _ := tarball.Split(p)
	return path.Join(dir, link)
}

func notDevice(m os.FileMode) error {
	switch {
	case m&os.ModeDevice != 0:
		return errors.New("got a device")
	case m&os.ModeIrregular != 0:
		return errors.New("got an irregular file")
	}
	return nil
}

// usable checks a local path before anything is asked for.
func usable(p string) error {
	if dir := filepath.Dir(filepath.Clean(p)); dir != "." {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("invalid output path: directory %q does not exist", dir)
		}
	}
	st, err := os.Stat(p)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := notDevice(st.Mode()); err != nil {
		return fmt.Errorf("invalid output path: %q must be a directory or a regular file: %w", p, err)
	}
	return nil
}

// out copies from the container.
func (t *transfer) out() (err error) {
	if t.outside != "-" {
		if t.outside, err = tarball.Absolute(t.outside); err != nil {
			return err
		}
	}
	if err := usable(t.outside); err != nil {
		return err
	}
	src := tarball.Info{Path: t.inside, Exists: true}
	if t.follow {
		if st, err := t.stat(t.inside); err == nil && st.Mode&os.ModeSymlink != 0 {
			src.Path, src.Rebase = tarball.Renamed(t.inside, target(t.inside, st.LinkTarget))
			t.inside = src.Path
		}
	}
	resp, err := t.api.Open(t.ctx, http.MethodGet, containerPath(t.ref, "/archive"), t.query(), nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	st, err := readStat(resp)
	if err != nil {
		return err
	}
	src.IsDir = st.Mode.IsDir()
	if t.outside == "-" {
		_, err := io.Copy(t.a.Stdout, resp.Body)
		return err
	}
	m := t.meter("Copying from container - ")
	err = t.lay(m.reader(resp.Body), src)
	m.end(err, t.outside)
	return err
}

// lay puts what came where it was asked to be.
func (t *transfer) lay(r io.Reader, src tarball.Info) error {
	dst, err := tarball.Destination(t.outside)
	if err != nil {
		return err
	}
	asked := src.Rebase
	src.Rebase = ""
	dir, rename, err := tarball.Plan(src, dst)
	if err != nil {
		return err
	}
	if asked != "" { // entries are called as the link's target is
		_, base := tarball.Split(src.Path)
		if dst.Exists && dst.IsDir {
			rename = tarball.Rename(base, asked)
		}
	}
	return tarball.Extract(r, dir, rename, t.archive && os.Geteuid() == 0)
}

// in copies into the container.
func (t *transfer) in() (err error) {
	if t.outside != "-" {
		if t.outside, err = tarball.Absolute(t.outside); err != nil {
			return err
		}
	}
	dst := tarball.Info{Path: t.inside}
	asked := t.inside
	st, err := t.stat(t.inside)
	if err == nil && st.Mode&os.ModeSymlink != 0 {
		dst.Path = target(t.inside, st.LinkTarget)
		st, err = t.stat(dst.Path)
	}
	var down *client.DownError
	if errors.As(err, &down) || isMissing(err) && strings.Contains(err.Error(), "No such container") {
		return err
	}
	if err == nil {
		if err := notDevice(st.Mode); err != nil {
			return fmt.Errorf("destination \"%s:%s\" must be a directory or a regular file: %w", t.ref, asked, err)
		}
		dst.Exists, dst.IsDir = true, st.Mode.IsDir()
	} // otherwise its folder may be there, and the engine tells
	if t.outside == "-" {
		if !dst.IsDir {
			return fmt.Errorf("destination \"%s:%s\" must be a directory", t.ref, asked)
		}
		t.inside = dst.Path
		return t.put(t.a.Stdin)
	}
	src, err := tarball.Source(t.outside, t.follow)
	if err != nil {
		return err
	}
	dir, rename, err := tarball.Plan(src, dst)
	if err != nil {
		return err
	}
	t.inside = dir
	return t.send(src, rename, t.ref+":"+dst.Path)
}

// send writes local files into the container.
func (t *transfer) send(src tarball.Info, rename func(string) string, where string) error {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() { // ends with the tar, or when the request did
		err := tarball.Write(w, src, rename)
		w.CloseWithError(err)
		written <- err
	}()
	m := t.meter("Copying to container - ")
	err := t.put(m.reader(r))
	r.CloseWithError(io.ErrClosedPipe)
	if werr := <-written; werr != nil && !errors.Is(werr, io.ErrClosedPipe) {
		err = werr // the engine only saw that the tar was broken off
	}
	m.end(err, where)
	return err
}

func (t *transfer) put(tar io.Reader) error {
	q := t.query()
	q.Set("noOverwriteDirNonDir", "true")
	if t.archive {
		q.Set("copyUIDGID", "true")
	}
	resp, err := t.api.Open(t.ctx, http.MethodPut, containerPath(t.ref, "/archive"), q, tar, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// meter counts what is copied and says so on stderr, on a terminal all the time.
type meter struct {
	t    *transfer
	r    io.Reader
	head string
	live bool
	n    int64
	next time.Time
}

func (t *transfer) meter(head string) *meter {
	return &meter{t: t, head: head, live: !t.quiet && tty.IsTerminal(int(t.a.Stderr.Fd()))}
}

func (m *meter) reader(r io.Reader) io.Reader {
	m.r = r
	return m
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	if now := time.Now(); m.live && now.After(m.next) {
		fmt.Fprintf(m.t.a.Stderr, "\r\x1b[K%s%s", m.head, size(m.n))
		m.next = now.Add(75 * time.Millisecond)
	}
	return n, err
}

// end says how much it was. Docker's client says so of copies that failed, too.
func (m *meter) end(err error, where string) {
	if m.live {
		fmt.Fprint(m.t.a.Stderr, "\r\x1b[K")
	}
	if !m.t.quiet && err == nil {
		fmt.Fprintln(m.t.a.Stderr, "Successfully copied", size(m.n), "to", format.Safe(where))
	}
}

func size(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

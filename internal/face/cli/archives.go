package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/face/cli/format"
	"github.com/dhow-containers/dhow/internal/linux/tty"
)

// platformQuery turns os/arch[/variant] into what a parameter of images takes.
func platformQuery(q url.Values, s string) error {
	if s == "" {
		return nil
	}
	return addPlatform(q, "platform", s)
}

func addPlatform(q url.Values, name, s string) error {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 {
		return fmt.Errorf("invalid platform %q: want OS/ARCH or OS/ARCH/VARIANT", s)
	}
	p := map[string]string{"os": parts[0], "architecture": parts[1]}
	if len(parts) == 3 {
		p["variant"] = parts[2]
	}
	b, err := json.Marshal(p)
	q.Add(name, string(b))
	return err
}

func cmdSave(a *app) *cobra.Command {
	var output, platform string
	c := words("save [OPTIONS] IMAGE [IMAGE...]", "Write images into a tar archive", "dhow save -o app.tar app:1 app:2\ndhow save app:1 | gzip > app.tar.gz", minArgs(1),
		func(c *cobra.Command, args []string) error {
			q := url.Values{"names": args}
			if err := platformQuery(q, platform); err != nil {
				return err
			}
			return download(c.Context(), a, "/images/get", q, output)
		})
	c.Flags().StringVarP(&output, "output", "o", "", "File to write to, instead of standard output")
	c.Flags().StringVar(&platform, "platform", "", "Save images of this platform only (OS/ARCH)")
	return c
}

func cmdExport(a *app) *cobra.Command {
	var output string
	c := words("export [OPTIONS] CONTAINER", "Write a container's file system into a tar archive", "dhow export -o web.tar web", exactArgs(1),
		func(c *cobra.Command, args []string) error {
			return download(c.Context(), a, containerPath(args[0], "/export"), nil, output)
		})
	c.Flags().StringVarP(&output, "output", "o", "", "File to write to, instead of standard output")
	return c
}

// download writes an answer to a file, which appears when it is whole, or to standard output.
func download(ctx context.Context, a *app, path string, q url.Values, output string) error {
	if output == "" && tty.IsTerminal(int(a.Stdout.Fd())) {
		return errors.New("an archive is not for a terminal: use -o FILE or redirect the output")
	}
	if output != "" {
		if st, err := os.Stat(filepath.Dir(output)); err != nil || !st.IsDir() {
			return fmt.Errorf("-o %s: the folder %s does not exist", output, filepath.Dir(output))
		}
	}
	api, err := a.client()
	if err != nil {
		return err
	}
	resp, err := api.Open(ctx, http.MethodGet, path, q, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if output == "" {
		_, err = io.Copy(a.Stdout, resp.Body)
		return broken(err)
	}
	return broken(writeWhole(output, resp.Body))
}

// broken says in words that the engine gave up in the middle.
func broken(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the engine broke off in the middle, its log says why; what was written is not whole")
	}
	return err
}

// writeWhole writes a file that has its name when it is whole. What is there already and no plain file (a device, a pipe) is written to as it is.
func writeWhole(name string, r io.Reader) error {
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(f, r)
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := atomicfile.Begin(dir, filepath.Base(name))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	return f.Commit()
}

func cmdLoad(a *app) *cobra.Command {
	var input, platform string
	var quiet bool
	c := words("load [OPTIONS]", "Read images from a tar archive", "dhow load -i app.tar\nzcat app.tar.gz | dhow load", exactArgs(0),
		func(c *cobra.Command, args []string) error {
			q := url.Values{}
			if err := platformQuery(q, platform); err != nil {
				return err
			}
			if quiet {
				q.Set("quiet", "1")
			}
			r, err := source(a, input)
			if err != nil {
				return err
			}
			defer r.Close()
			return upload(c.Context(), a, "/images/load", q, r, quiet)
		})
	c.Flags().StringVarP(&input, "input", "i", "", "File to read, instead of standard input")
	c.Flags().StringVar(&platform, "platform", "", "Load images of this platform only (OS/ARCH)")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "Do not show progress")
	return c
}

// source is the file to read; "" and "-" are standard input.
func source(a *app, name string) (io.ReadCloser, error) {
	if name != "" && name != "-" {
		return os.Open(name)
	}
	if tty.IsTerminal(int(a.Stdin.Fd())) {
		return nil, errors.New("no archive given: use -i FILE or redirect the input")
	}
	return io.NopCloser(a.Stdin), nil
}

// upload sends a tar and shows what the engine says.
func upload(ctx context.Context, a *app, path string, q url.Values, r io.Reader, quiet bool) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	resp, err := api.Open(ctx, http.MethodPost, path, q, bufio.NewReaderSize(r, 256<<10), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	fd := int(a.Stdout.Fd())
	_, cols, err := tty.Size(fd)
	if err != nil || cols == 0 {
		cols = 80
	}
	return format.Progress(a.Stdout, int(cols), tty.IsTerminal(fd) && !quiet, resp.Body)
}

func cmdImport(a *app) *cobra.Command {
	var changes []string
	var message, platform string
	c := words("import [OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]", "Make an image of a file system's tar archive",
		"dhow import rootfs.tar.gz base:1\ndhow export web | dhow import -c 'CMD [\"sh\"]' - web:flat", countArgs(1, 2),
		func(c *cobra.Command, args []string) error {
			q := url.Values{"fromSrc": {"-"}, "changes": changes}
			if len(args) == 2 {
				repo, tag := splitRef(args[1])
				q.Set("repo", repo)
				q.Set("tag", tag)
			}
			for k, v := range map[string]string{"message": message, "platform": platform} {
				if v != "" {
					q.Set(k, v)
				}
			}
			if strings.HasPrefix(args[0], "http://") || strings.HasPrefix(args[0], "https://") {
				q.Set("fromSrc", args[0])
				return upload(c.Context(), a, "/images/create", q, strings.NewReader(""), false)
			}
			r, err := source(a, args[0])
			if err != nil {
				return err
			}
			defer r.Close()
			return upload(c.Context(), a, "/images/create", q, r, false)
		})
	c.Flags().StringArrayVarP(&changes, "change", "c", nil, "Instruction of a Dockerfile to apply to the image (CMD, ENV, ...)")
	c.Flags().StringVarP(&message, "message", "m", "", "Comment in the image's history")
	c.Flags().StringVar(&platform, "platform", "", "Platform that the files are for")
	return c
}

func cmdCommit(a *app) *cobra.Command {
	var changes []string
	var author, message string
	var pause, noPause bool
	c := words("commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Make an image of a container's changes", "dhow commit -m 'with curl' -c 'CMD [\"sh\"]' web web:2", countArgs(1, 2),
		func(c *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{"container": {args[0]}, "author": {author}, "comment": {message}, "changes": changes}
			if len(args) == 2 {
				repo, tag := splitRef(args[1])
				q.Set("repo", repo)
				q.Set("tag", tag)
			}
			if !pause || noPause {
				q.Set("pause", "0")
			}
			var made container.CommitResponse
			if err := api.Post(c.Context(), "/commit", q, nil, &made); err != nil {
				return err
			}
			a.out(made.ID)
			return nil
		})
	f := c.Flags()
	f.StringVarP(&author, "author", "a", "", "Who made it")
	f.StringArrayVarP(&changes, "change", "c", nil, "Instruction of a Dockerfile to apply to the image (CMD, ENV, ...)")
	f.StringVarP(&message, "message", "m", "", "Comment in the image's history")
	f.BoolVarP(&pause, "pause", "p", true, "Freeze the container meanwhile")
	f.BoolVar(&noPause, "no-pause", false, "Do not freeze the container meanwhile")
	return c
}

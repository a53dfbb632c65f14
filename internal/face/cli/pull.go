package cli

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/format"
	"github.com/dhow-containers/dhow/internal/linux/tty"
	"github.com/dhow-containers/dhow/internal/spec/ref"
)

// splitRef cuts a reference into the name and its digest or tag.
func splitRef(ref string) (name, tag string) {
	if n, d, ok := strings.Cut(ref, "@"); ok {
		if i := strings.LastIndexByte(n, ':'); i > strings.LastIndexByte(n, '/') {
			n = n[:i] // the digest decides
		}
		return n, d
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i], ref[i+1:]
	}
	return ref, ""
}

// tagged names the tag that a bare name means.
func tagged(ref string) string {
	if _, tag := splitRef(ref); tag == "" {
		return ref + ":latest"
	}
	return ref
}

// registryOf returns the host of a reference's registry, docker.io when it names none.
func registryOf(ref string) string {
	host, _, ok := strings.Cut(ref, "/")
	if ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		return host
	}
	return "docker.io"
}

type pullOptions struct {
	platform string
	quiet    bool
	allTags  bool
	lazy     bool
	to       *os.File
}

// pull pulls an image and shows its progress on o.to.
func (a *app) pull(ctx context.Context, ref string, o pullOptions) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	name, tag := splitRef(ref)
	q := url.Values{"fromImage": {name}}
	if tag == "" && !o.allTags {
		tag = "latest"
	}
	if tag != "" {
		q.Set("tag", tag)
	}
	if o.platform != "" {
		q.Set("platform", o.platform)
	}
	if o.lazy {
		q.Set("lazy", "1")
	}
	head := http.Header{}
	if err := a.authHeader(ctx, head, registryOf(name)); err != nil {
		return err
	}
	resp, err := api.Open(ctx, http.MethodPost, "/images/create", q, nil, head)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if o.quiet {
		return format.Progress(io.Discard, 0, false, resp.Body)
	}
	fd := int(o.to.Fd())
	_, cols, err := tty.Size(fd)
	if err != nil || cols == 0 {
		cols = 80
	}
	return format.Progress(o.to, int(cols), tty.IsTerminal(fd), resp.Body)
}

func cmdPull(a *app) *cobra.Command {
	o, all := pullOptions{to: a.Stdout}, false
	c := words("pull NAME[:TAG|@DIGEST]", "Download an image from a registry",
		"dhow pull debian:12\ndhow pull -q registry.example:5000/team/app@sha256:...", exactArgs(1),
		func(c *cobra.Command, args []string) error {
			if o.allTags {
				if _, tag := splitRef(args[0]); tag != "" {
					return usage(c, exitError, errTagWithAll)
				}
			}
			if all && o.platform != "" {
				return usage(c, exitError, errors.New("--all-platforms and --platform exclude each other"))
			}
			if all && o.lazy {
				return usage(c, exitError, errors.New("--all-platforms and --lazy exclude each other"))
			}
			if all {
				o.platform = "all"
			}
			if o.platform == "" {
				o.platform = a.getenv("DOCKER_DEFAULT_PLATFORM")
			}
			last, err := ref.Parse(args[0])
			if err != nil {
				return err
			}
			if _, tag := splitRef(args[0]); tag == "" && !o.allTags && !o.quiet {
				a.out("Using default tag: " + last.Tag)
			}
			if err := a.pull(c.Context(), args[0], o); err != nil {
				return err
			}
			if o.allTags {
				a.out(last.Name())
			} else {
				a.out(last.String())
			}
			return nil
		})
	c.Flags().BoolVarP(&o.allTags, "all-tags", "a", false, "Download every tag of the name")
	c.Flags().BoolVar(&all, "all-platforms", false, "Download the images of all platforms; push and save can then pick any, and push the whole index")
	c.Flags().BoolVar(&o.lazy, "lazy", false, "Be done when containers can use the image, while layers in zstd:chunked or eStargz still arrive")
	c.Flags().StringVar(&o.platform, "platform", "", "Platform to pull (os/arch[/variant])")
	c.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "Do not show progress")
	return c
}

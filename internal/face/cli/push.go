package cli

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/format"
	"github.com/dhow-containers/dhow/internal/linux/tty"
	"github.com/dhow-containers/dhow/internal/spec/ref"
)

type pushOptions struct {
	platform, compression string
	quiet, allTags        bool
}

func cmdPush(a *app) *cobra.Command {
	var o pushOptions
	c := words("push [OPTIONS] NAME[:TAG]", "Upload an image to a registry", "dhow push registry.example:5000/team/app:2\ndhow push -a registry.example:5000/team/app", exactArgs(1),
		func(c *cobra.Command, args []string) error {
			name, tag := splitRef(args[0])
			if o.allTags && tag != "" {
				return usage(c, exitError, errTagWithAll)
			}
			if strings.Contains(args[0], "@") {
				return errors.New("cannot push a digest reference")
			}
			r, err := ref.Parse(args[0])
			if err != nil {
				return err
			}
			if tag == "" && !o.allTags && !o.quiet {
				a.out("Using default tag: " + r.Tag)
			}
			if o.platform == "" {
				o.platform = a.getenv("DOCKER_DEFAULT_PLATFORM")
			}
			if err := pushImage(a, c, name, tag, o); err != nil {
				return err
			}
			if o.quiet {
				a.out(r.String())
			}
			return nil
		})
	c.Flags().BoolVarP(&o.allTags, "all-tags", "a", false, "Upload every tag of the name")
	c.Flags().StringVar(&o.platform, "platform", "", "Upload the image of this platform (os/arch[/variant]) only, not the whole index")
	c.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "Do not show progress")
	c.Flags().StringVar(&o.compression, "compression", "", "How layers are compressed that the registry lacks: gzip or zstd (default as they were)")
	return c
}

func pushImage(a *app, c *cobra.Command, name, tag string, o pushOptions) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	q := url.Values{}
	if !o.allTags {
		if tag == "" {
			tag = "latest"
		}
		q.Set("tag", tag)
	}
	if o.platform != "" {
		p, err := platformJSON(o.platform)
		if err != nil {
			return err
		}
		q.Set("platform", p)
	}
	if o.compression != "" {
		q.Set("compression", o.compression)
	}
	head := http.Header{}
	if err := a.authHeader(c.Context(), head, registryOf(name)); err != nil {
		return err
	}
	resp, err := api.Open(c.Context(), http.MethodPost, "/images/"+name+"/push", q, nil, head)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if o.quiet {
		return format.Progress(io.Discard, 0, false, resp.Body)
	}
	fd := int(a.Stdout.Fd())
	_, cols, err := tty.Size(fd)
	if err != nil || cols == 0 {
		cols = 80
	}
	return format.Progress(a.Stdout, int(cols), tty.IsTerminal(fd), resp.Body)
}

func platformJSON(s string) (string, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 {
		return "", errors.New("--platform wants os/arch[/variant]")
	}
	p := ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	b, err := json.Marshal(p)
	return string(b), err
}

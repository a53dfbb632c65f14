package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/client"
	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

// kinds are what inspect looks for, in this order.
func kinds() []string { return []string{"container", "image", "network", "volume"} }

func kindPath(kind, ref string) string {
	switch kind {
	case "container":
		return containerPath(ref, "/json")
	case "image":
		return "/images/" + escapeRef(ref) + "/json"
	case "network":
		return "/networks/" + url.PathEscape(ref)
	}
	return "/volumes/" + url.PathEscape(ref)
}

func kindValue(kind string) any {
	switch kind {
	case "container":
		return &container.InspectResponse{}
	case "image":
		return &image.InspectResponse{}
	case "network":
		return &network.Inspect{}
	}
	return &volume.Volume{}
}

func cmdInspect(a *app) *cobra.Command {
	c := inspectCommand(a, "")
	return c
}

func inspectCommand(a *app, kind string) *cobra.Command {
	var fm, typ, platform string
	var size bool
	what, short := "NAME|ID", "Show everything known about objects"
	if kind != "" {
		what, short = strings.ToUpper(kind), "Show everything known about "+kind+"s"
	}
	c := words("inspect [OPTIONS] "+what+" ["+what+"...]", short, "dhow inspect web\ndhow inspect -f '{{.State.Pid}}' web", minArgs(1),
		func(c *cobra.Command, args []string) error {
			search := kinds()
			if kind != "" {
				typ = kind
			}
			if typ != "" {
				ok := false
				for _, k := range search {
					ok = ok || k == typ
				}
				if !ok {
					return usage(c, exitError, fmt.Errorf("--type %q: want %s", typ, strings.Join(search, ", ")))
				}
				search = []string{typ}
			}
			q := url.Values{}
			if err := platformQuery(q, platform); err != nil {
				return err
			}
			if size {
				q.Set("size", "1")
			}
			return a.inspect(c.Context(), args, search, fm, q)
		})
	c.Flags().StringVarP(&fm, "format", "f", "", "Format of the output: json or a Go template")
	if kind == "" || kind == "container" {
		c.Flags().BoolVarP(&size, "size", "s", false, "Show the sizes of a container's files")
	}
	if kind == "image" {
		c.Flags().StringVar(&platform, "platform", "", "Of the image of this platform (OS/ARCH)")
	}
	if kind == "" {
		c.Flags().StringVar(&typ, "type", "", "Look for this kind only (container, image, network, volume)")
	}
	return c
}

func (a *app) inspect(ctx context.Context, refs, search []string, fm string, q url.Values) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	var found []json.RawMessage
	var failed []error
	for _, ref := range refs {
		if strings.TrimSpace(ref) == "" {
			failed = append(failed, errors.New("name cannot be empty"))
			continue
		}
		kind, raw, err := find(ctx, api, ref, search, q)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if fm == "" || fm == "json" {
			found = append(found, raw)
			continue
		}
		if err := inspectTemplate(a, kind, raw, fm); err != nil {
			return err
		}
	}
	switch {
	case fm == "json":
		for _, raw := range found {
			var b bytes.Buffer
			if json.Compact(&b, raw) == nil {
				a.out(b.String())
			}
		}
	case fm == "":
		var b bytes.Buffer
		if len(found) == 0 {
			b.WriteString("[]")
		} else if err := json.Indent(&b, []byte(mustJSON(found)), "", "    "); err != nil {
			return err
		}
		a.out(b.String())
	}
	for _, err := range failed {
		a.complain(err)
	}
	if len(failed) > 0 {
		return exit(exitError, nil)
	}
	return nil
}

// find asks for ref in the kinds of search, in order; only "not found" makes it go on.
func find(ctx context.Context, api *client.Client, ref string, search []string, q url.Values) (string, []byte, error) {
	for _, kind := range search {
		var raw []byte
		err := api.Get(ctx, kindPath(kind, ref), q, &raw)
		if err == nil {
			return kind, raw, nil
		}
		if s := client.StatusOf(err); s != http.StatusNotFound && s != http.StatusNotImplemented || len(search) == 1 {
			return "", nil, err
		}
	}
	return "", nil, fmt.Errorf("no such object: %s", ref)
}

// inspectTemplate runs the template on the typed answer, and on the bare JSON when it names something the types lack.
func inspectTemplate(a *app, kind string, raw []byte, fm string) error {
	t, err := format.Parse(fm)
	if err != nil {
		return err
	}
	v := kindValue(kind)
	var out bytes.Buffer
	err = json.Unmarshal(raw, v)
	if err == nil {
		if err = t.Execute(&out, v); err == nil {
			a.out(out.String())
			return nil
		}
	}
	var bare any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if derr := dec.Decode(&bare); derr != nil {
		return errors.Join(err, derr)
	}
	out.Reset()
	if berr := t.Option("missingkey=error").Execute(&out, bare); berr != nil {
		return fmt.Errorf("--format: %w", err)
	}
	a.out(out.String())
	return nil
}

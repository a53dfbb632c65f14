package cli

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

// imageLayer and layerFile are the engine's answers.
type imageLayer struct {
	Index                                int
	Digest, DiffID, MediaType, CreatedBy string
	Created                              time.Time
	Compressed, Size, DiskUse            int64
	Entries                              int
	SharedWith                           []string
}

type layerFile struct {
	Layer            int
	Path, Kind, Link string
	Mode             uint32
	Size             int64
	Hides            []int
	By               int

	Error string `json:",omitempty"`
}

type layerRow struct {
	Layer, Digest, DiffID, MediaType, CreatedAt, CreatedSince, CreatedBy, Compressed, Size, DiskUse, Entries, SharedWith string
}

type layerFileRow struct{ Layer, Path, Kind, Mode, Size, Link, Hides, By string }

func cmdLayers(a *app) *cobra.Command {
	var files, noTrunc, asJSON bool
	var number int
	var fm string
	c := words("layers [OPTIONS] IMAGE", "Show the layers of an image: how large, who shares them, which brought which file",
		"dhow image layers debian:12\ndhow image layers --files --layer 2 app:1\ndhow image layers --files app:1 | grep etc/passwd", exactArgs(1),
		func(c *cobra.Command, args []string) error {
			switch {
			case asJSON && fm != "":
				return usage(c, exitError, errors.New("--json and --format exclude each other"))
			case c.Flags().Changed("layer") && !files:
				return usage(c, exitError, errors.New("--layer needs --files"))
			case number < 0:
				return usage(c, exitError, fmt.Errorf("--layer %d: the base is 0", number))
			case asJSON:
				fm = "json"
			}
			if files {
				return printLayerFiles(a, c, args[0], number, c.Flags().Changed("layer"), fm)
			}
			return printLayers(a, c, args[0], fm, noTrunc)
		})
	f := c.Flags()
	f.BoolVar(&files, "files", false, "Show every name that a layer brings or hides")
	f.IntVar(&number, "layer", 0, "With --files: of this layer only (0 is the base)")
	f.BoolVar(&noTrunc, "no-trunc", false, "Do not shorten")
	f.BoolVar(&asJSON, "json", false, "Print JSON, one object a line")
	f.StringVar(&fm, "format", "", "Format of the output: table, json, or a Go template")
	return c
}

func printLayers(a *app, c *cobra.Command, ref, fm string, noTrunc bool) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	var list []imageLayer
	if err := api.Get(c.Context(), "/dhow/images/"+escapeRef(ref)+"/layers", nil, &list); err != nil {
		return err
	}
	var rows []any
	for _, l := range list {
		if fm == "json" { // figures stay figures
			rows = append(rows, l)
			continue
		}
		r := layerRow{Layer: fmt.Sprint(l.Index), Digest: l.Digest, DiffID: l.DiffID, MediaType: format.Safe(l.MediaType), CreatedAt: l.Created.Format(time.RFC3339),
			CreatedSince: format.Ago(time.Now(), l.Created), CreatedBy: format.Safe(strings.ReplaceAll(l.CreatedBy, "\t", " ")), Compressed: format.Size(l.Compressed),
			Size: format.Size(l.Size), DiskUse: format.Size(l.DiskUse), Entries: fmt.Sprint(l.Entries), SharedWith: format.Safe(strings.Join(l.SharedWith, ", "))}
		if !noTrunc {
			r.Digest, r.DiffID, r.CreatedBy, r.SharedWith = id.Short(r.Digest), id.Short(r.DiffID), format.Ellipsis(r.CreatedBy, 45), format.Ellipsis(r.SharedWith, 40)
		}
		rows = append(rows, r)
	}
	t := format.Table{Header: layerRow{"LAYER", "DIGEST", "DIFF ID", "MEDIA TYPE", "CREATED AT", "CREATED", "CREATED BY", "COMPRESSED", "SIZE", "DISK USE", "ENTRIES", "SHARED WITH"},
		Default: "{{.Layer}}\t{{.Digest}}\t{{.DiffID}}\t{{.CreatedBy}}\t{{.Compressed}}\t{{.Size}}\t{{.DiskUse}}\t{{.Entries}}\t{{.SharedWith}}"}
	return t.Print(a.Stdout, fm, false, rows)
}

func printLayerFiles(a *app, c *cobra.Command, ref string, number int, one bool, fm string) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	q := url.Values{}
	if one {
		q.Set("layer", fmt.Sprint(number))
	}
	resp, err := api.Open(c.Context(), http.MethodGet, "/dhow/images/"+escapeRef(ref)+"/files", q, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var rows []any
	if err := jsonLines(resp.Body, func(_ []byte, f layerFile) error {
		if f.Error != "" {
			return errors.New(f.Error)
		}
		if fm == "json" {
			rows = append(rows, f)
			return nil
		}
		r := layerFileRow{Layer: fmt.Sprint(f.Layer), Path: format.Safe(f.Path), Kind: f.Kind, Link: format.Safe(f.Link)}
		if f.Kind != "whiteout" && f.Kind != "opaque" {
			r.Mode, r.Size = fmt.Sprintf("%04o", f.Mode), fmt.Sprint(f.Size)
		}
		if len(f.Hides) > 0 {
			r.Hides = strings.Trim(fmt.Sprint(f.Hides), "[]")
		}
		if f.By >= 0 {
			r.By = fmt.Sprint(f.By)
		}
		rows = append(rows, r)
		return nil
	}); err != nil {
		return err
	}
	t := format.Table{Header: layerFileRow{"LAYER", "PATH", "KIND", "MODE", "SIZE", "LINK", "HIDES", "HIDDEN BY"},
		Default: "{{.Layer}}\t{{.Kind}}\t{{.Mode}}\t{{.Size}}\t{{.Hides}}\t{{.By}}\t{{.Path}}{{if .Link}} -> {{.Link}}{{end}}"}
	return t.Print(a.Stdout, fm, false, rows)
}

func cmdLayout(a *app) *cobra.Command {
	return words("layout DIR [IMAGE...]", "Make a folder of the engine's host an OCI image layout that shows images, without copying their layers",
		"dhow system layout /var/lib/dhow.oci\nskopeo inspect oci:/var/lib/dhow.oci:docker.io/library/debian:12", minArgs(1), func(c *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			api, err := a.client()
			if err != nil {
				return err
			}
			var tags []string
			if err := api.Post(c.Context(), "/dhow/system/layout", url.Values{"dir": {dir}, "name": args[1:]}, nil, &tags); err != nil {
				return err
			}
			for _, t := range tags {
				a.out(format.Safe("oci:" + dir + ":" + t))
			}
			return nil
		})
}

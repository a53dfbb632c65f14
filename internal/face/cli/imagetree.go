package cli

import (
	"github.com/moby/moby/api/types/image"

	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

type treeRow struct{ Image, ID, DiskUsage, ContentSize, Extra string }

// printTree lists images with the platforms that are here of each. Extra is U for one that a container uses.
func printTree(a *app, list []image.Summary, full bool) error {
	var rows []any
	add := func(r treeRow, used bool) {
		if !full {
			r.ID = id.Short(r.ID)
		}
		if used {
			r.Extra = "U"
		}
		rows = append(rows, r)
	}
	for _, s := range list {
		names := s.RepoTags
		if len(names) == 0 {
			names = []string{"<untagged>"}
		}
		used := false
		var content int64
		for _, m := range s.Manifests {
			content += m.Size.Content
			used = used || m.ImageData != nil && len(m.ImageData.Containers) > 0
		}
		for _, n := range names {
			add(treeRow{Image: format.Safe(n), ID: s.ID, DiskUsage: format.Size(s.Size), ContentSize: format.Size(content)}, used)
		}
		for n, m := range s.Manifests {
			branch, name := "├─ ", string(m.Kind)
			if n == len(s.Manifests)-1 {
				branch = "└─ "
			}
			if m.ImageData != nil {
				p := m.ImageData.Platform
				if name = p.OS + "/" + p.Architecture; p.Variant != "" {
					name += "/" + p.Variant
				}
			}
			add(treeRow{Image: branch + format.Safe(name), ID: m.ID, DiskUsage: format.Size(m.Size.Total), ContentSize: format.Size(m.Size.Content)},
				m.ImageData != nil && len(m.ImageData.Containers) > 0)
		}
	}
	t := format.Table{Header: treeRow{"IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"}, Default: "{{.Image}}\t{{.ID}}\t{{.DiskUsage}}\t{{.ContentSize}}\t{{.Extra}}"}
	return t.Print(a.Stdout, "", false, rows)
}

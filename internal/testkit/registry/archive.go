package registry

import (
	"archive/tar"
	"testing"

	"github.com/dhow-containers/dhow/internal/spec/manifest"
)

// Archive holds the entries of an archive as Docker wrote it before 25: the config beside folders with layer.tar.
func Archive(t testing.TB, img *Image, tags ...string) []File {
	item := manifest.ArchiveItem{Config: img.ID.Encoded() + ".json", RepoTags: tags}
	files := []File{blob(item.Config, img.Blobs[img.ID])}
	for i, d := range img.Manifest.Layers {
		dir := img.DiffIDs[i].Encoded()
		files = append(files, Dir(dir), blob(dir+"/VERSION", []byte("1.0")), blob(dir+"/json", []byte("{}")), blob(dir+"/layer.tar", img.Blobs[d.Digest]))
		item.Layers = append(item.Layers, dir+"/layer.tar")
	}
	return append(files, blob("manifest.json", encode(t, []manifest.ArchiveItem{item})), blob("repositories", []byte("{}")))
}

func blob(name string, b []byte) File {
	return File{Header: tar.Header{Name: name, Mode: 0o644}, Body: b}
}

package manifest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	dg     = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	config = `{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + dg + `","size":2}`
	layer  = `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + dg + `","size":2}`
	man    = `{"schemaVersion":2,"config":` + config + `,"layers":[` + layer + `]}`
	index  = `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + dg + `","size":2}]}`
)

func TestDecode(t *testing.T) {
	for name, c := range map[string]struct{ raw, outside, want string }{
		"bare manifest":                   {man, "", ocispec.MediaTypeImageManifest},
		"bare index":                      {index, "text/plain; charset=utf-8", ocispec.MediaTypeImageIndex},
		"docker by header":                {man, DockerManifest, DockerManifest},
		"list by header":                  {index, DockerManifestList, DockerManifestList},
		"both say the same":               {typed(man, DockerManifest), DockerManifest + "; charset=utf-8", DockerManifest},
		"no layers":                       {strings.Replace(man, layer, "", 1), "", ocispec.MediaTypeImageManifest},
		"unknown keys":                    {`{"x":{"y":[1,{"z":null}]},` + man[1:], "", ocispec.MediaTypeImageManifest},
		"annotations that differ in case": {`{"annotations":{"a":"1","A":"2"},` + man[1:], "", ocispec.MediaTypeImageManifest},
	} {
		d, err := Decode([]byte(c.raw), c.outside)
		if err != nil || d.MediaType != c.want || (d.Manifest == nil) == (d.Index == nil) {
			t.Errorf("%s: %v %v", name, d.MediaType, err)
		}
	}
}

func typed(raw, mt string) string { return `{"mediaType":"` + mt + `",` + raw[1:] }

func TestDecodeRefuses(t *testing.T) {
	many := func(one string, n int) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }
	for name, c := range map[string]struct {
		raw, outside, text string
		kind               errdef.Kind
	}{
		"empty":              {"", "", "no JSON", errdef.DataLoss},
		"array":              {"[]", "", "not a JSON object", errdef.DataLoss},
		"null":               {"null", "", "not a JSON object", errdef.DataLoss},
		"garbage behind":     {man + "x", "", "data after", errdef.DataLoss},
		"second object":      {man + man, "", "data after", errdef.DataLoss},
		"neither":            {`{"schemaVersion":2}`, "", "either", errdef.DataLoss},
		"manifest and index": {man[:len(man)-1] + `,"manifests":[]}`, "", "either", errdef.DataLoss},
		"index with config":  {index[:len(index)-1] + `,"config":null}`, "", "either", errdef.DataLoss},
		"duplicate key":      {`{"layers":[],` + man[1:], "", `"layers" appears twice`, errdef.DataLoss},
		"duplicate nested":   {strings.Replace(man, `"size":2`, `"size":1,"size":2`, 1), "", `"size" appears twice`, errdef.DataLoss},
		"escaped duplicate":  {`{"\u006cayers":[],` + man[1:], "", `"layers" appears twice`, errdef.DataLoss},
		"case-folded key":    {`{"Layers":[],` + man[1:], "", "disguise", errdef.DataLoss},
		"case-folded alone":  {strings.Replace(man, `"layers"`, `"LAYERS"`, 1), "", "disguise", errdef.DataLoss},
		"kelvin sign":        {strings.Replace(man, `"digest"`, `"dige\u017ft"`, 1), "", "disguise", errdef.DataLoss},
		"folded manifests":   {`{"Manifests":[],` + man[1:], "", "disguise", errdef.DataLoss},
		"wrong type inside":  {typed(man, ocispec.MediaTypeImageIndex), "", "does not fit", errdef.DataLoss},
		"wrong type outside": {man, ocispec.MediaTypeImageIndex, "does not fit", errdef.DataLoss},
		"types differ":       {typed(man, DockerManifest), ocispec.MediaTypeImageManifest, "the registry says", errdef.DataLoss},
		"unknown type":       {typed(man, "application/x"), "", "unknown mediaType", errdef.DataLoss},
		"schema version":     {strings.Replace(man, "n\":2", "n\":3", 1), "", "schemaVersion", errdef.DataLoss},
		"schema 1":           {`{"schemaVersion":1,"fsLayers":[],"history":[]}`, "", "schema version 1", errdef.NotImplemented},
		"upper case digest":  {strings.Replace(man, dg, strings.ToUpper(dg), 1), "", "invalid digest", errdef.DataLoss},
		"path digest":        {strings.Replace(man, dg, "sha256:../../../../etc/passwd", 1), "", "invalid digest", errdef.DataLoss},
		"sha1":               {strings.Replace(man, dg, "sha1:"+dg[7:47], 1), "", "invalid digest", errdef.DataLoss},
		"no digest":          {strings.Replace(man, dg, "", 1), "", "invalid digest", errdef.DataLoss},
		"negative size":      {strings.Replace(man, `"size":2`, `"size":-2`, 1), "", "size -2", errdef.DataLoss},
		"huge config":        {strings.Replace(man, `"size":2`, `"size":5000000`, 1), "", "size 5000000", errdef.DataLoss},
		"size beyond int64":  {strings.Replace(man, `"size":2`, `"size":99999999999999999999`, 1), "", "", errdef.DataLoss},
		"501 layers":         {strings.Replace(man, layer, many(layer, 501), 1), "", "501 layers", errdef.DataLoss},
		"1001 manifests":     {`{"schemaVersion":2,"manifests":[` + many(config, 1001) + `]}`, "", "1001 manifests", errdef.DataLoss},
		"deep":               {`{"x":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "," + man[1:], "", "nested deeper", errdef.DataLoss},
		"4 MiB and one":      {man + strings.Repeat(" ", MaxSize+1-len(man)), "", "larger than", errdef.DataLoss},
		"helm chart":         {strings.Replace(man, "oci.image.config", "cncf.helm.config", 1), "", "not a container image", errdef.NotImplemented},
		"encrypted layer":    {strings.Replace(man, "tar+gzip", "tar+gzip+encrypted", 1), "", "not a file system layer", errdef.NotImplemented},
	} {
		_, err := Decode([]byte(c.raw), c.outside)
		if !errdef.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: kind %d: %v", name, errdef.KindOf(err), err)
		}
	}
	if _, err := Decode([]byte(strings.Replace(man, layer, many(layer, 500), 1)), ""); err != nil {
		t.Error("500 layers:", err)
	}
}

func TestDecodeConfig(t *testing.T) {
	ok := `{"architecture":"amd64","os":"linux","created":"2024-01-02T03:04:05Z","container_config":{"Env":null},
		"config":{"Env":["A=b"],"Cmd":["sh"],"Labels":{"a":"1","A":"2"},"Healthcheck":{"Test":["CMD","true"]}},"rootfs":{"type":"layers","diff_ids":["` + dg + `"]}}`
	c, err := DecodeConfig([]byte(ok))
	if err != nil || c.Config.Cmd[0] != "sh" || c.Config.Healthcheck == nil || c.Architecture != "amd64" || len(c.Config.Labels) != 2 {
		t.Fatal(err, c)
	}
	for name, raw := range map[string]string{
		"duplicate":   strings.Replace(ok, `"Cmd":`, `"Cmd":["x"],"Cmd":`, 1),
		"folded":      strings.Replace(ok, `"Cmd":`, `"cmd":`, 1),
		"folded top":  strings.Replace(ok, `"rootfs":`, `"RootFS":`, 1),
		"NUL in env":  strings.Replace(ok, "A=b", `A=\u0000`, 1),
		"NUL in cmd":  strings.Replace(ok, `"sh"`, `"s\u0000h"`, 1),
		"no rootfs":   `{"architecture":"amd64","os":"linux"}`,
		"bad diff ID": strings.Replace(ok, dg, "sha256:zz", 1),
		"no object":   `"x"`,
		"large":       strings.Replace(ok, "A=b", strings.Repeat("A", MaxSize), 1),
	} {
		if _, err := DecodeConfig([]byte(raw)); !errdef.Is(err, errdef.DataLoss) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSelect(t *testing.T) {
	entry := func(p string, mt string) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: mt, Digest: "sha256:" + "0123"}
		if p != "" {
			pl, err := ParsePlatform(p, ocispec.Platform{})
			if err != nil {
				t.Fatal(err)
			}
			d.Platform = &pl
			d.ArtifactType = p
		}
		return d
	}
	m := ocispec.MediaTypeImageManifest
	ix := &ocispec.Index{Manifests: []ocispec.Descriptor{entry("unknown/unknown", m), entry("linux/arm/v6", m), entry("linux/arm/v5", m),
		entry("linux/amd64", m), entry("linux/arm64/v8", m), entry("windows/amd64", m)}}
	for want, got := range map[string]string{"linux/amd64": "linux/amd64", "linux/x86_64": "linux/amd64", "linux/arm/v7": "linux/arm/v6",
		"linux/arm/v6": "linux/arm/v6", "linux/arm/v5": "linux/arm/v5", "linux/aarch64": "linux/arm64/v8", "amd64": "linux/amd64", "linux/s390x": "", "linux/amd64/v3": "linux/amd64"} {
		p, err := ParsePlatform(want, ocispec.Platform{OS: "linux", Architecture: "amd64"})
		if err != nil {
			t.Fatal(err)
		}
		d, err := Select(ix, p)
		if d.ArtifactType != got || (err != nil) != (got == "") {
			t.Errorf("%s: %q %v", want, d.ArtifactType, err)
		}
	}
	nested := &ocispec.Index{Manifests: []ocispec.Descriptor{entry("", ocispec.MediaTypeImageIndex)}}
	if d, err := Select(nested, HostPlatform()); err != nil || d.MediaType != ocispec.MediaTypeImageIndex {
		t.Error(d, err)
	}
	for _, bad := range []string{"linux/", "/", "a/b/c/d", "linux/am d", "linux/\x1b"} {
		if _, err := ParsePlatform(bad, HostPlatform()); !errdef.Is(err, errdef.InvalidArgument) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// FuzzDecode: whatever is accepted means the same to a plain decoder, and no key of ours was given in another spelling.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{man, index, typed(man, DockerManifest), `{"schemaVersion":2,"layers":[],"config":{}}`} {
		f.Add([]byte(s), "")
	}
	f.Fuzz(func(t *testing.T, raw []byte, mt string) {
		d, err := Decode(raw, mt)
		if err != nil {
			return
		}
		var m map[string]json.RawMessage
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal("accepted what is no JSON")
		}
		_, hasManifests := m["manifests"]
		if hasManifests != (d.Index != nil) {
			t.Fatal("kind and keys differ")
		}
		if d.Manifest != nil {
			for _, l := range append(d.Manifest.Layers, d.Manifest.Config) {
				if len(l.Digest) != 71 || l.Size < 0 {
					t.Fatalf("descriptor %+v", l)
				}
			}
		}
	})
}

// FuzzConfig: no panic, and no NUL in what becomes arguments.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(fmt.Sprintf(`{"os":"linux","config":{"Cmd":["a"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`, dg)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := DecodeConfig(raw)
		if err == nil && strings.ContainsRune(strings.Join(c.Config.Cmd, ""), 0) {
			t.Fatal("NUL in Cmd")
		}
	})
}

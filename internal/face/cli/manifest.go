package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/spec/ref"
)

// listed is one image of a manifest list as docker's client keeps it too, a file each in config's folder manifests/LIST/.
type listed struct {
	Ref              string
	Descriptor       ocispec.Descriptor
	Raw              []byte          `json:",omitempty"`
	SchemaV2Manifest json.RawMessage `json:",omitempty"`
	OCIManifest      json.RawMessage `json:",omitempty"`
}

func groupManifest(a *app) *cobra.Command {
	return group("manifest", "Make and push lists of images for several platforms", manifestCreate(a), manifestAnnotate(a), manifestInspect(a), manifestPush(a), manifestRm(a))
}

// manifestList is a list on this client.
type manifestList struct {
	name string // canonical
	dir  string
}

func openList(a *app, name string) (l manifestList, err error) {
	r, err := ref.Parse(name)
	if err != nil {
		return l, err
	}
	if r.Digest != "" {
		return l, fmt.Errorf("%s: a manifest list has a tag, not a digest", name)
	}
	c, err := a.config()
	if err != nil {
		return l, err
	}
	return manifestList{r.String(), filepath.Join(filepath.Dir(c.path), "manifests", fileName(r.String()))}, nil
}

// fileName is docker's way to write a reference as the name of a file.
func fileName(ref string) string { return strings.NewReplacer(":", "-", "/", "_").Replace(ref) }

// images are the list's, by name; none says that there is no such list.
func (l manifestList) images() ([]listed, error) {
	files, err := os.ReadDir(l.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var out []listed
	for _, f := range files {
		raw, rerr := os.ReadFile(filepath.Join(l.dir, f.Name()))
		var m listed
		if rerr == nil {
			rerr = json.Unmarshal(raw, &m)
		}
		if rerr != nil {
			return nil, fmt.Errorf("manifest list %s: %s: %w", l.name, f.Name(), rerr)
		}
		if len(m.Raw) == 0 { // docker's client leaves it out of what it has made itself
			m.Raw = append(m.SchemaV2Manifest, m.OCIManifest...)
		}
		out = append(out, m)
	}
	return out, err
}

func (l manifestList) save(m listed) error {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return err
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(l.dir, fileName(m.Ref)), raw, 0o600)
}

// fetchManifest asks the engine for what a registry has.
func fetchManifest(a *app, c *cobra.Command, name string, insecure bool) (m listed, err error) {
	r, err := ref.Parse(name)
	if err != nil {
		return m, err
	}
	api, err := a.client()
	if err != nil {
		return m, err
	}
	q, head := url.Values{}, http.Header{}
	if insecure {
		q.Set("insecure", "1")
	}
	if err := a.authHeader(c.Context(), head, r.Domain); err != nil {
		return m, err
	}
	resp, err := api.Open(c.Context(), http.MethodGet, "/dhow/manifests/"+escapeRef(r.String()), q, nil, head)
	if err != nil {
		return m, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		return m, fmt.Errorf("decode the engine's answer: %w", err)
	}
	if strings.HasPrefix(m.Descriptor.MediaType, "application/vnd.docker.") {
		m.SchemaV2Manifest = m.Raw
	} else {
		m.OCIManifest = m.Raw
	}
	return m, nil
}

func isList(d ocispec.Descriptor) bool {
	return d.MediaType == ocispec.MediaTypeImageIndex || strings.Contains(d.MediaType, "manifest.list")
}

func manifestCreate(a *app) *cobra.Command {
	var amend, insecure bool
	c := words("create [OPTIONS] MANIFEST_LIST MANIFEST [MANIFEST...]", "Make a local list of images that are in a registry",
		"dhow manifest create registry.example/app:1 registry.example/app:1-amd64 registry.example/app:1-arm64", minArgs(2), func(c *cobra.Command, args []string) error {
			l, err := openList(a, args[0])
			if err != nil {
				return err
			}
			if have, err := l.images(); err != nil {
				return err
			} else if len(have) > 0 && !amend {
				return fmt.Errorf("the manifest list %s is there already: --amend adds to it", l.name)
			}
			var all []listed
			for _, name := range args[1:] {
				m, err := fetchManifest(a, c, name, insecure)
				if err != nil {
					return err
				}
				if isList(m.Descriptor) {
					return fmt.Errorf("%s is a manifest list: name the images in it", name)
				}
				all = append(all, m)
			}
			for _, m := range all {
				if err := l.save(m); err != nil {
					return err
				}
			}
			a.out("Created manifest list " + l.name)
			return nil
		})
	c.Flags().BoolVarP(&amend, "amend", "a", false, "Add to a list that is there")
	c.Flags().BoolVar(&insecure, "insecure", false, "Speak to a registry without TLS")
	return c
}

func manifestAnnotate(a *app) *cobra.Command {
	var p ocispec.Platform
	c := words("annotate [OPTIONS] MANIFEST_LIST MANIFEST", "Say what platform an image of a local list is for",
		"dhow manifest annotate --os linux --arch arm64 registry.example/app:1 registry.example/app:1-arm64", exactArgs(2), func(c *cobra.Command, args []string) error {
			l, err := openList(a, args[0])
			if err != nil {
				return err
			}
			m, err := l.find(args[1])
			if err != nil {
				return err
			}
			if m.Descriptor.Platform == nil {
				m.Descriptor.Platform = &ocispec.Platform{}
			}
			to := m.Descriptor.Platform
			for _, s := range []struct {
				to   *string
				from string
			}{{&to.OS, p.OS}, {&to.Architecture, p.Architecture}, {&to.Variant, p.Variant}, {&to.OSVersion, p.OSVersion}} {
				if s.from != "" {
					*s.to = s.from
				}
			}
			for _, f := range p.OSFeatures {
				if !slices.Contains(to.OSFeatures, f) {
					to.OSFeatures = append(to.OSFeatures, f)
				}
			}
			if to.OS == "" || to.Architecture == "" {
				return fmt.Errorf("manifest %s: its platform needs --os and --arch", args[1])
			}
			return l.save(m)
		})
	f := c.Flags()
	f.StringVar(&p.OS, "os", "", "Operating system")
	f.StringVar(&p.Architecture, "arch", "", "Architecture")
	f.StringVar(&p.Variant, "variant", "", "Variant of the architecture")
	f.StringVar(&p.OSVersion, "os-version", "", "Version of the operating system")
	f.StringSliceVar(&p.OSFeatures, "os-features", nil, "Features of the operating system")
	return c
}

func (l manifestList) find(name string) (listed, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return listed{}, err
	}
	all, err := l.images()
	if err != nil {
		return listed{}, err
	}
	for _, m := range all {
		if m.Ref == r.String() {
			return m, nil
		}
	}
	if len(all) == 0 {
		return listed{}, fmt.Errorf("no such manifest list on this client: %s", l.name)
	}
	return listed{}, fmt.Errorf("manifest for image %s does not exist in %s", r.String(), l.name)
}

func manifestInspect(a *app) *cobra.Command {
	var verbose, insecure bool
	c := words("inspect [OPTIONS] [MANIFEST_LIST] MANIFEST", "Show a manifest or list, of this client or of a registry", "dhow manifest inspect debian:12\ndhow manifest inspect -v registry.example/app:1", countArgs(1, 2),
		func(c *cobra.Command, args []string) error {
			l, err := openList(a, args[0])
			if len(args) == 2 {
				if err != nil {
					return err
				}
				m, err := l.find(args[1])
				if err != nil {
					return err
				}
				return printManifest(a, m, verbose)
			}
			if err == nil {
				have, err := l.images()
				if err != nil {
					return err
				}
				if len(have) > 0 {
					return printList(a, have, verbose)
				}
			}
			m, err := fetchManifest(a, c, args[0], insecure)
			if err != nil {
				return err
			}
			if !isList(m.Descriptor) || !verbose {
				return printManifest(a, m, verbose)
			}
			var ix ocispec.Index
			if err := json.Unmarshal(m.Raw, &ix); err != nil {
				return err
			}
			name, _ := splitRef(args[0])
			var all []listed
			for _, d := range ix.Manifests {
				one, err := fetchManifest(a, c, name+"@"+d.Digest.String(), insecure)
				if err != nil {
					return err
				}
				one.Descriptor = d
				all = append(all, one)
			}
			return printList(a, all, true)
		})
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show reference, platform and contents of each manifest")
	c.Flags().BoolVar(&insecure, "insecure", false, "Speak to a registry without TLS")
	return c
}

// printManifest prints one as it is, or with what is known about it.
func printManifest(a *app, m listed, verbose bool) error {
	if verbose {
		return printJSON(a, m)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, m.Raw, "", "\t"); err != nil {
		return fmt.Errorf("manifest %s: %w", m.Ref, err)
	}
	a.out(strings.TrimSpace(b.String()))
	return nil
}

func printList(a *app, all []listed, verbose bool) error {
	if verbose {
		return printJSON(a, all)
	}
	ix := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	ix.SchemaVersion = 2
	for _, m := range all {
		if m.Descriptor.MediaType != ocispec.MediaTypeImageManifest {
			ix.MediaType = "application/vnd.docker.distribution.manifest.list.v2+json"
		}
		ix.Manifests = append(ix.Manifests, m.Descriptor)
	}
	return printJSON(a, ix)
}

func manifestPush(a *app) *cobra.Command {
	var purge, insecure bool
	c := words("push [OPTIONS] MANIFEST_LIST", "Upload a local list to its registry", "dhow manifest push --purge registry.example/app:1", exactArgs(1), func(c *cobra.Command, args []string) error {
		l, err := openList(a, args[0])
		if err != nil {
			return err
		}
		all, err := l.images()
		if err == nil && len(all) == 0 {
			err = fmt.Errorf("no such manifest list on this client: %s", l.name)
		}
		if err != nil {
			return err
		}
		for i := range all {
			if p := all[i].Descriptor.Platform; p == nil || p.OS == "" || p.Architecture == "" {
				return fmt.Errorf("manifest %s has no platform: dhow manifest annotate --os OS --arch ARCH %s %[1]s", all[i].Ref, l.name)
			}
			all[i].SchemaV2Manifest, all[i].OCIManifest = nil, nil
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		q, head := url.Values{}, http.Header{}
		if insecure {
			q.Set("insecure", "1")
		}
		if err := a.authHeader(c.Context(), head, registryOf(l.name)); err != nil {
			return err
		}
		resp, err := api.Open(c.Context(), http.MethodPost, "/dhow/manifests/"+escapeRef(l.name), q, all, head)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var done struct{ Digest string }
		if err := json.NewDecoder(resp.Body).Decode(&done); err != nil {
			return fmt.Errorf("decode the engine's answer: %w", err)
		}
		a.out(done.Digest)
		if purge {
			return os.RemoveAll(l.dir)
		}
		return nil
	})
	c.Flags().BoolVarP(&purge, "purge", "p", false, "Remove the local list afterwards")
	c.Flags().BoolVar(&insecure, "insecure", false, "Speak to a registry without TLS")
	return c
}

func manifestRm(a *app) *cobra.Command {
	return words("rm MANIFEST_LIST [MANIFEST_LIST...]", "Remove lists from this client", "dhow manifest rm registry.example/app:1", minArgs(1), func(_ *cobra.Command, args []string) error {
		var failed []error
		for _, n := range args {
			l, err := openList(a, n)
			if err == nil {
				if _, err = os.Stat(l.dir); err != nil {
					err = fmt.Errorf("no such manifest list on this client: %s", l.name)
				} else {
					err = os.RemoveAll(l.dir)
				}
			}
			failed = append(failed, err)
		}
		return errors.Join(failed...)
	})
}

func printJSON(a *app, v any) error {
	raw, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	a.out(string(raw))
	return nil
}

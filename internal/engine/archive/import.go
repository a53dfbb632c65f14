package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/archive/change"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/store/image"
)

// Import implements api.Archives.
func (s *Service) Import(ctx context.Context, o api.ImportOptions, r io.Reader, p api.Progress) error {
	platform, err := manifest.ParsePlatform(o.Platform, manifest.HostPlatform())
	if err != nil {
		return err
	}
	if platform.OS != "linux" {
		return errdef.New(errdef.InvalidArgument, "import: platform %s: only linux is supported", manifest.PlatformString(platform))
	}
	config := container.Config{}
	if err := change.Apply(&config, nil, o.Changes); err != nil {
		return err
	}
	comment := o.Message
	if comment == "" {
		comment = "Imported from -"
	}
	if o.URL != "" {
		body, err := fetch(ctx, o.URL, p)
		if err != nil {
			return err
		}
		defer body.Close()
		r = body
		if o.Message == "" {
			comment = "Imported from " + o.URL
		}
	}
	plain, err := image.Inflate(r, 1<<62)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	defer plain.Close()
	b := s.Store.Begin()
	defer b.Close()
	layer, err := b.Layer(ctx, plain)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if layer.Entries == 0 {
		return errdef.New(errdef.InvalidArgument, "import: the archive has no entries")
	}
	now := time.Now().UTC()
	img := dockerspec.DockerOCIImage{Config: imageConfig(&config)}
	img.Platform, img.Created = platform, &now
	img.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.DiffID}}
	img.History = []ocispec.History{{Created: &now, Comment: comment}}
	made, err := s.add(ctx, b, img, o.Ref)
	if err != nil {
		return err
	}
	p(jsonstream.Message{Status: made.ID.String()})
	s.event(events.ActionImport, made, made.ID.String())
	return nil
}

// The bounds of a download.
const (
	mostRedirects = 10
	headerWait    = 30 * time.Second
)

// fetch gets what lies at a URL: http and https only, also behind redirects, and without credentials other than those in the URL.
func fetch(ctx context.Context, from string, p api.Progress) (io.ReadCloser, error) {
	if !strings.Contains(from, "://") {
		from = "http://" + from
	}
	u, err := url.Parse(from)
	if err != nil {
		return nil, errdef.New(errdef.InvalidArgument, "import: %w", err)
	}
	if err := web(u); err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout, t.MaxResponseHeaderBytes, t.DisableCompression = headerWait, 64<<10, true
	client := &http.Client{Transport: t, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) >= mostRedirects {
			return errors.New("too many redirects")
		}
		return web(r.URL)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errdef.New(errdef.InvalidArgument, "import: %w", err)
	}
	p(jsonstream.Message{Status: "Downloading from " + u.Redacted()})
	resp, err := client.Do(req)
	if err != nil {
		return nil, errdef.New(errdef.Unavailable, "import: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, errdef.New(errdef.Unavailable, "import: %s answers %s", u.Redacted(), resp.Status)
	}
	return body{resp.Body, t}, nil
}

func web(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errdef.New(errdef.InvalidArgument, "import: %q: want a URL with http or https, or - for the request itself", u.Redacted())
	}
	return nil
}

// body closes the connection with the answer.
type body struct {
	io.ReadCloser
	t *http.Transport
}

func (b body) Close() error {
	err := b.ReadCloser.Close()
	b.t.CloseIdleConnections()
	return err
}

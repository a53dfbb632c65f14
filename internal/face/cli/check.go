package cli

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

// finding is one line of the engine's answer: something wrong, or at the end the summary, or why the check broke off.
type finding struct {
	Kind, Object, Path, Problem, Advice string
	Repaired                            bool

	Summary *checkSummary `json:",omitempty"`
	Error   string        `json:",omitempty"`
}

type checkSummary struct {
	Records, Images, Blobs, Layers, Merged, Snapshots int
	Bytes                                             int64
	Found, Repaired                                   int
}

func cmdCheck(a *app) *cobra.Command {
	var repair, asJSON bool
	var fm string
	c := words("check [OPTIONS]", "Compare everything on the engine's disk with what it should be", "dhow system check\ndhow system check --repair\ndhow system check --json | jq -r .Path", maxArgs(0),
		func(c *cobra.Command, _ []string) error {
			if asJSON && fm != "" && fm != "json" {
				return usage(c, exitError, errors.New("--json and --format exclude each other"))
			}
			if asJSON {
				fm = "json"
			}
			if fm != "" { // a wrong template must not wait for the first finding
				if err := (format.Table{}).Print(io.Discard, fm, false, []any{finding{}}); err != nil {
					return usage(c, exitError, err)
				}
			}
			q, head := url.Values{}, http.Header{}
			if repair {
				q.Set("repair", "1")
				if err := authHeaders(a, c, head); err != nil {
					return err
				}
			}
			api, err := a.client()
			if err != nil {
				return err
			}
			resp, err := api.Open(c.Context(), http.MethodPost, "/dhow/system/check", q, nil, head)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			return findings(a, resp.Body, fm)
		})
	c.Flags().BoolVar(&repair, "repair", false, "Mend what is damaged: from the layers' tars, or fetched anew from the registry that it came from")
	c.Flags().BoolVar(&asJSON, "json", false, "Print findings and summary as JSON, one a line")
	c.Flags().StringVar(&fm, "format", "", "Format of each finding: json or a Go template")
	return c
}

// findings prints what a check says. It fails when something is wrong still.
func findings(a *app, r io.Reader, fm string) error {
	left := 0
	err := jsonLines(r, func(raw []byte, f finding) error {
		switch {
		case f.Error != "":
			return errors.New(f.Error)
		case fm == "json":
			a.out(string(raw))
		case f.Summary != nil && fm == "":
			s := f.Summary
			a.out(fmt.Sprintf("Checked %d records, %d images, %d blobs, %d layers, %d merged indexes, %d snapshots (%s): %d found, %d repaired", s.Records, s.Images, s.Blobs,
				s.Layers, s.Merged, s.Snapshots, units.HumanSize(float64(s.Bytes)), s.Found, s.Repaired))
		case f.Summary == nil && fm != "":
			return format.Table{}.Print(a.Stdout, fm, false, []any{f})
		case f.Summary == nil:
			at := ""
			if f.Path != "" {
				at = " (" + f.Path + ")"
			}
			a.out(format.Safe(f.Kind + " " + f.Object + at + ": " + f.Problem + ": " + f.Advice))
		}
		if f.Summary != nil {
			left = f.Summary.Found - f.Summary.Repaired
		}
		return nil
	})
	if err == nil && left > 0 {
		return exit(exitError, nil)
	}
	return err
}

// maxLine bounds one line of an answer.
const maxLine = 1 << 20

// jsonLines decodes an answer of JSON values, one a line.
func jsonLines[T any](r io.Reader, each func(raw []byte, v T) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		var v T
		if err := json.Unmarshal(s.Bytes(), &v); err != nil {
			return fmt.Errorf("decode the engine's answer: %w", err)
		}
		if err := each(s.Bytes(), v); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil {
		return broken(err)
	}
	return nil
}

// authHeaders gives the engine all credentials that there are, since only it knows which registries it will ask.
func authHeaders(a *app, c *cobra.Command, h http.Header) error {
	conf, err := a.config()
	if err != nil {
		return err
	}
	var auths map[string]json.RawMessage
	var helpers map[string]string
	if err := errors.Join(conf.get("auths", &auths), conf.get("credHelpers", &helpers)); err != nil {
		return err
	}
	for server := range helpers {
		if auths == nil {
			auths = map[string]json.RawMessage{}
		}
		auths[server] = nil
	}
	all := map[string]*registry.AuthConfig{}
	for server := range auths {
		host := strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://")
		if host, _, _ = strings.Cut(host, "/"); server == hubKey {
			host = "docker.io"
		}
		ac, err := a.auth(c.Context(), host)
		if err != nil {
			return err
		}
		if ac != nil {
			all[host] = ac
		}
	}
	if len(all) == 0 {
		return nil
	}
	b, err := json.Marshal(all)
	h.Set("X-Registry-Config", base64.URLEncoding.EncodeToString(b))
	return err
}

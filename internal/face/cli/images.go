package cli

import (
	"errors"
	"fmt"
	"net/url"
	"sort"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/face/cli/format"
	"github.com/dhow-containers/dhow/internal/spec/ref"
)

func imageVerbs(a *app) []*cobra.Command {
	return []*cobra.Command{cmdRmi(a, "rmi"), cmdSearch(a), cmdTag(a), cmdHistory(a), cmdSave(a), cmdLoad(a), cmdImport(a)}
}

func groupImage(a *app) *cobra.Command {
	ls := imagesCommand(a, "ls")
	ls.Aliases = []string{"list"}
	rm := cmdRmi(a, "rm")
	rm.Aliases = []string{"remove"}
	return group("image", "Manage images", ls, rm, cmdTag(a), cmdHistory(a), cmdLayers(a), cmdPull(a), cmdPush(a), cmdSave(a), cmdLoad(a), cmdImport(a), inspectCommand(a, "image"), cmdPrune(a, "image"))
}

type imageRow struct {
	Containers, CreatedAt, CreatedSince, Digest, ID, Repository, SharedSize, Size, Tag, UniqueSize string
}

func newImageHeader() imageRow {
	return imageRow{"CONTAINERS", "CREATED AT", "CREATED", "DIGEST", "IMAGE ID", "REPOSITORY", "SHARED SIZE", "SIZE", "TAG", "UNIQUE SIZE"}
}

// imageRows are the lines of one image: one for each tag, and for each repository that it is of by a digest only.
func imageRows(s *image.Summary, now time.Time, full bool) []imageRow {
	created := time.Unix(s.Created, 0)
	base := imageRow{Containers: "N/A", SharedSize: "N/A", UniqueSize: "N/A", CreatedAt: created.String(), CreatedSince: format.Ago(now, created),
		ID: s.ID, Size: format.Size(s.Size), Repository: "<none>", Tag: "<none>", Digest: "<none>"}
	if s.Containers >= 0 {
		base.Containers = fmt.Sprint(s.Containers)
	}
	if s.SharedSize >= 0 {
		base.SharedSize, base.UniqueSize = format.Size(s.SharedSize), format.Size(s.Size-s.SharedSize)
	}
	if !full {
		base.ID = id.Short(s.ID)
	}
	byRepo := map[string]string{}
	for _, d := range s.RepoDigests {
		if repo, dig, ok := strings.Cut(d, "@"); ok && repo != "<none>" {
			byRepo[repo] = dig
		}
	}
	var rows []imageRow
	used := map[string]bool{}
	for _, t := range s.RepoTags {
		repo, tag := splitRef(t)
		if repo == "<none>" {
			continue
		}
		r := base
		r.Repository, r.Tag = format.Safe(repo), format.Safe(tag)
		if d := byRepo[repo]; d != "" {
			r.Digest, used[repo] = format.Safe(d), true
		}
		rows = append(rows, r)
	}
	repos := make([]string, 0, len(byRepo))
	for repo := range byRepo {
		if !used[repo] {
			repos = append(repos, repo)
		}
	}
	sort.Strings(repos)
	for _, repo := range repos {
		r := base
		r.Repository, r.Digest = format.Safe(repo), format.Safe(byRepo[repo])
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		rows = []imageRow{base}
	}
	return rows
}

func cmdImages(a *app) *cobra.Command { return imagesCommand(a, "images") }

func imagesCommand(a *app, name string) *cobra.Command {
	var o struct {
		all, digests, noTrunc, quiet, tree bool
		format                             string
		filter                             []string
	}
	c := words(name+" [OPTIONS] [REPOSITORY[:TAG]]", "List images", "dhow images\ndhow images --filter dangling=true -q", maxArgs(1),
		func(c *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				o.filter = append(o.filter, "reference="+args[0])
			}
			q, err := filterQuery(o.filter)
			if err != nil {
				return usage(c, exitError, err)
			}
			if o.all {
				q.Set("all", "1")
			}
			if o.tree {
				if o.format != "" || o.quiet || o.digests {
					return usage(c, exitError, errors.New("--tree excludes --format, --quiet and --digests"))
				}
				q.Set("manifests", "1")
			}
			var list []image.Summary
			if err := api.Get(c.Context(), "/images/json", q, &list); err != nil {
				return err
			}
			if o.tree {
				return printTree(a, list, o.noTrunc)
			}
			f := a.listFormat("imagesFormat", o.format, o.quiet)
			t := format.Table{Header: newImageHeader(), Quiet: "{{.ID}}", Default: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"}
			if o.digests {
				t.Default = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
			}
			var rows []any
			for i := range list {
				for _, r := range imageRows(&list[i], time.Now(), o.noTrunc) {
					rows = append(rows, r)
				}
			}
			return t.Print(a.Stdout, f, o.quiet, rows)
		})
	f := c.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "Show intermediate images as well")
	f.BoolVar(&o.digests, "digests", false, "Show digests")
	f.StringArrayVarP(&o.filter, "filter", "f", nil, "Show only what matches (key=value)")
	f.StringVar(&o.format, "format", "", "Format of the output: table, json, or a Go template")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Do not shorten")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Show IDs only")
	f.BoolVar(&o.tree, "tree", false, "Show the platforms of each image")
	return c
}

func cmdRmi(a *app, name string) *cobra.Command {
	var force, noPrune bool
	var platforms []string
	c := words(name+" [OPTIONS] IMAGE [IMAGE...]", "Remove images", "dhow "+name+" debian:12", minArgs(1),
		func(c *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{}
			if force {
				q.Set("force", "1")
			}
			if noPrune {
				q.Set("noprune", "1")
			}
			for _, p := range platforms {
				if err := addPlatform(q, "platforms", p); err != nil {
					return err
				}
			}
			var failed []error
			for _, n := range args {
				var gone []image.DeleteResponse
				err := nameless(n)
				if err == nil {
					err = api.Delete(c.Context(), "/images/"+escapeRef(n), q, &gone)
				}
				if err != nil {
					if !force || !isMissing(err) { // with -f, what is gone is as wanted
						failed = append(failed, err)
					}
					a.complain(err)
				}
				for _, g := range gone {
					if g.Untagged != "" {
						a.out("Untagged: " + format.Safe(g.Untagged))
					}
					if g.Deleted != "" {
						a.out("Deleted: " + format.Safe(g.Deleted))
					}
				}
			}
			if len(failed) > 0 {
				return exit(exitError, nil)
			}
			return nil
		})
	c.Flags().BoolVarP(&force, "force", "f", false, "Remove it although it is in use")
	c.Flags().BoolVar(&noPrune, "no-prune", false, "Keep untagged parents")
	c.Flags().StringSliceVar(&platforms, "platform", nil, "Remove only the image of this platform (OS/ARCH) from one for several")
	return c
}

// nameless refuses the name of an image that is none.
func nameless(n string) error {
	if strings.TrimSpace(n) == "" {
		return errors.New("image name cannot be empty")
	}
	return nil
}

// escapeRef makes a reference safe as the middle of a path; its slashes stay.
func escapeRef(ref string) string {
	parts := strings.Split(ref, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}

func cmdTag(a *app) *cobra.Command {
	return words("tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Give an image another name", "dhow tag app:latest registry.example:5000/app:1.2", exactArgs(2),
		func(c *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			if strings.Contains(args[1], "@") {
				return errors.New("refusing to create a tag with a digest reference")
			}
			for _, n := range args {
				if _, err := ref.Parse(n); err != nil && (n == args[1] || n == "") { // the source may be an ID
					return err
				}
			}
			repo, tag := splitRef(args[1])
			q := url.Values{"repo": {repo}}
			if tag != "" {
				q.Set("tag", tag)
			}
			return api.Post(c.Context(), "/images/"+escapeRef(args[0])+"/tag", q, nil, nil)
		})
}

type historyRow struct{ Comment, CreatedAt, CreatedBy, CreatedSince, ID, Size string }

func cmdHistory(a *app) *cobra.Command {
	var human, noTrunc, quiet bool
	var fm, platform string
	c := words("history [OPTIONS] IMAGE", "Show how an image came to be", "dhow history debian:12", exactArgs(1),
		func(c *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{}
			if err := platformQuery(q, platform); err != nil {
				return err
			}
			if err := nameless(args[0]); err != nil {
				return err
			}
			var list []image.HistoryResponseItem
			if err := api.Get(c.Context(), "/images/"+escapeRef(args[0])+"/history", q, &list); err != nil {
				return err
			}
			rows := make([]any, len(list))
			for i, h := range list {
				created := time.Unix(h.Created, 0)
				r := historyRow{Comment: format.Safe(h.Comment), CreatedAt: created.Format(time.RFC3339), ID: h.ID,
					CreatedBy: format.Safe(strings.ReplaceAll(h.CreatedBy, "\t", " ")), CreatedSince: format.Ago(time.Now(), created), Size: fmt.Sprint(h.Size)}
				if human {
					r.Size = units.HumanSizeWithPrecision(float64(h.Size), 3)
				} else {
					r.CreatedSince = r.CreatedAt
				}
				if !noTrunc {
					r.ID, r.CreatedBy = id.Short(h.ID), format.Ellipsis(r.CreatedBy, 45)
				}
				rows[i] = r
			}
			head := historyRow{"COMMENT", "CREATED AT", "CREATED BY", "CREATED", "IMAGE", "SIZE"}
			if !human {
				head.CreatedSince = head.CreatedAt
			}
			t := format.Table{Header: head, Quiet: "{{.ID}}", Default: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"}
			return t.Print(a.Stdout, fm, quiet, rows)
		})
	c.Flags().StringVar(&platform, "platform", "", "Of the image of this platform (OS/ARCH)")
	c.Flags().BoolVarP(&human, "human", "H", true, "Print sizes and dates in words")
	c.Flags().BoolVar(&noTrunc, "no-trunc", false, "Do not shorten")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "Show IDs only")
	c.Flags().StringVar(&fm, "format", "", "Format of the output: table, json, or a Go template")
	return c
}

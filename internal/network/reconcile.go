package network

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/network/apply"
	"github.com/dhow-containers/dhow/internal/network/plan"
	"golang.org/x/sys/unix"
)

// reconciler makes kernel and records agree, after the engine was away and while others change the host.
type reconciler struct {
	*core
	networks   registry
	containers connector
}

// Reconcile makes kernel and records agree after the engine was away: it takes back what belongs to containers that no longer
// live, puts bridges, links and rules of the living right, and serves their DNS again. What is right already is not touched.
// Errors about one container do not keep the others from being put right.
func (w reconciler) Reconcile(ctx context.Context, live []LiveContainer) error {
	alive := map[string]int{}
	for _, c := range live {
		alive[c.ID] = c.Pid
	}
	w.mu.Lock()
	var dead, kept []*record
	for _, r := range w.boxes {
		if _, ok := alive[r.Container]; ok {
			kept = append(kept, r)
		} else {
			dead = append(dead, r)
		}
	}
	w.mu.Unlock()
	var errs error
	for _, r := range dead {
		w.log.Info("network of a container that is gone taken back", "container", id.Short(r.Container))
		errs = errors.Join(errs, w.containers.withdraw(r))
	}
	errs = errors.Join(errs, w.networks.assertHost(), w.assertRules())
	for _, r := range kept {
		if err := ctx.Err(); err != nil {
			return errors.Join(errs, err)
		}
		if err := w.revive(r, alive[r.Container]); err != nil {
			errs = errors.Join(errs, fmt.Errorf("network of container %s: %w", id.Short(r.Container), err))
		}
	}
	return errors.Join(errs, w.sweep())
}

// revive puts the links of a living container back where they belong and serves its DNS.
func (w reconciler) revive(r *record, pid int) error {
	var lost []plan.Link
	for _, l := range r.Plan.Links {
		br, err := w.host.Link(l.Bridge)
		if err != nil {
			return err
		}
		have, err := w.host.Link(l.Name)
		switch {
		case errors.Is(err, unix.ENODEV):
			lost = append(lost, l)
			continue
		case err != nil:
			return err
		case have.Master != br.Index:
			if err := w.host.SetMaster(have.Index, br.Index); err != nil {
				return err
			}
			w.log.Info("container put back on its bridge", "container", id.Short(r.Container), "bridge", l.Bridge)
		}
		if err := w.host.SetUp(have.Index); err != nil {
			return err
		}
		if err := errors.Join(apply.AwaitReady(w.host, l.Name), apply.AwaitReady(w.host, l.Bridge)); err != nil {
			return err
		}
	}
	if len(lost) == 0 && (!r.Resolver || w.containers.names.serving(r.Container)) {
		return nil
	}
	ns, err := netlink.OpenNetns(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	if len(lost) > 0 {
		p := plan.Plan{Container: r.Container, Links: lost, Addrs: r.Plan.Addrs, Routes: r.Plan.Routes}
		if err := apply.Attach(w.host, ns, &p); err != nil {
			return err
		}
		w.log.Info("lost links of a container made anew", "container", id.Short(r.Container), "links", len(lost))
	}
	if !r.Resolver || w.containers.names.serving(r.Container) {
		return nil
	}
	var socks resolverSockets
	if err := netlink.Inside(ns, func() (err error) { socks, err = listenDNS(); return err }); err != nil {
		return err
	}
	w.containers.names.serve(r, socks)
	return nil
}

// ownLink matches the names that hostLink and apply give.
var ownLink = regexp.MustCompile(`^dh[0-9a-f]{10}(-\d{1,2})?$`)

// sweep removes host sides of links that no container owns. It is done in the background: each takes tens of milliseconds.
func (w reconciler) sweep() error {
	links, err := w.host.Links()
	if err != nil {
		return err
	}
	w.mu.Lock()
	mine := map[string]bool{}
	for _, r := range w.boxes {
		for _, l := range r.Plan.Links {
			mine[l.Name] = true
		}
	}
	bridges := map[string]bool{}
	for _, n := range w.nets {
		bridges[n.Device] = n.Device != ""
	}
	w.mu.Unlock()
	foreign := map[int]bool{} // bridges of others; another engine on this host names its links as we do
	for _, l := range links {
		foreign[l.Index] = l.Kind == "bridge" && !bridges[l.Name]
	}
	var orphans []int
	for _, l := range links {
		if l.Kind == "veth" && ownLink.MatchString(l.Name) && !mine[l.Name] && !foreign[l.Master] {
			orphans = append(orphans, l.Index)
		}
	}
	if len(orphans) == 0 {
		return nil
	}
	w.log.Info("links that no container owns are removed", "count", len(orphans))
	h, err := netlink.Open()
	if err != nil {
		return err
	}
	go func() { // ends with the list
		defer h.Close()
		for _, i := range orphans {
			if err := h.DeleteIndex(i); err != nil {
				w.log.Warn("orphaned link", "err", err)
			}
		}
	}()
	return nil
}

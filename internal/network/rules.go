package network

import (
	"context"

	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/linux/nft"
	"github.com/dhow-containers/dhow/internal/network/apply"
	"github.com/dhow-containers/dhow/internal/network/plan"
)

// assertRules makes the nft table hold what the tables in memory say.
func (c *core) assertRules() error {
	c.rules.Lock()
	defer c.rules.Unlock()
	return c.ruleset().Assert()
}

// ruleset is what the nft table shall hold now.
func (c *core) ruleset() apply.Ruleset {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := apply.Ruleset{Table: c.table, Router: c.route}
	for _, n := range c.nets {
		if n.Device == "" {
			continue
		}
		br := apply.Bridge{Name: n.Device, Internal: n.Internal, Masquerade: boolOption(n.Options, optMasquerade, true)}
		for _, sub := range n.Subnets {
			br.Subnets = append(br.Subnets, sub.Prefix)
		}
		r.Bridges = append(r.Bridges, br)
	}
	for _, b := range c.boxes {
		r.Elements = append(r.Elements, owned(b)...)
	}
	return r
}

func owned(r *record) []apply.Owned {
	out := make([]apply.Owned, len(r.Plan.Elements))
	for i, e := range r.Plan.Elements {
		out[i] = apply.Owned{Element: e, Owner: id.Short(r.Container)}
	}
	return out
}

// publish puts the ports of a container into the rules.
func (c connector) publish(r *record) error {
	c.rules.Lock()
	defer c.rules.Unlock()
	es := owned(r)
	if err := apply.Publish(c.table, es); err != nil {
		return err
	}
	return forgetDatagrams(r)
}

// forgetDatagrams drops tracked UDP flows to the container's ports: packets of a flow older than the rule would pass it by.
func forgetDatagrams(r *record) error {
	var flows []netlink.Flow
	for _, e := range r.Plan.Elements {
		if e.Proto == plan.UDP {
			flows = append(flows, netlink.Flow{Proto: plan.UDP, Port: e.HostPort})
		}
	}
	if len(flows) == 0 {
		return nil
	}
	return netlink.ForgetFlows(flows)
}

// Watch puts the rules back whenever somebody removes them (a firewall that flushes everything when it reloads), until ctx
// ends. It also says which other firewalls of the host drop forwarded packets, since no rule of ours can overrule that.
func (w reconciler) Watch(ctx context.Context) error {
	if others, err := w.table.DroppingForward(); err != nil {
		w.log.Warn("other firewalls", "err", err)
	} else if len(others) > 0 {
		w.log.Warn("another firewall drops forwarded packets by default: accept there what comes from or goes to the bridges of dhow, or containers reach nobody", "chains", others)
	}
	return nft.Watch(ctx, func() {
		w.rules.Lock()
		defer w.rules.Unlock()
		r := w.ruleset()
		ok, err := r.Intact()
		if err == nil && !ok {
			w.log.Warn("somebody removed rules of table inet " + w.cfg.Table + "; putting them back")
			err = r.Assert()
		}
		if err != nil {
			w.log.Error("rules could not be put back", "err", err)
		}
	})
}

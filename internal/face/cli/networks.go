package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/face/cli/create"
	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

func groupNetwork(a *app) *cobra.Command {
	return group("network", "Manage networks", networkLs(a), networkCreate(a), networkRm(a), networkConnect(a), networkDisconnect(a),
		inspectCommand(a, "network"), cmdPrune(a, "network"))
}

type networkRow struct {
	labelled
	CreatedAt, Driver, ID, IPv4, IPv6, Internal, Labels, Name, Scope string
}

func networkLs(a *app) *cobra.Command {
	var fm string
	var noTrunc, quiet bool
	var filter []string
	c := words("ls", "List networks", "dhow network ls --filter driver=bridge", maxArgs(0), func(c *cobra.Command, _ []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		q, err := filterQuery(filter)
		if err != nil {
			return usage(c, exitError, err)
		}
		var list []network.Summary
		if err := api.Get(c.Context(), "/networks", q, &list); err != nil {
			return err
		}
		slices.SortFunc(list, func(a, b network.Summary) int { return format.Natural(a.Name, b.Name) })
		rows := make([]any, len(list))
		for i, n := range list {
			r := networkRow{labelled: labelled{labels: n.Labels}, CreatedAt: n.Created.String(), Driver: n.Driver, ID: n.ID, Name: n.Name, Scope: n.Scope,
				IPv4: fmt.Sprint(n.EnableIPv4), IPv6: fmt.Sprint(n.EnableIPv6), Internal: fmt.Sprint(n.Internal), Labels: joinLabels(n.Labels)}
			if !noTrunc {
				r.ID = id.Short(n.ID)
			}
			for _, s := range []*string{&r.Driver, &r.ID, &r.Name, &r.Scope} {
				*s = format.Safe(*s)
			}
			rows[i] = r
		}
		t := format.Table{Quiet: "{{.ID}}", Default: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
			Header: networkRow{labelled{header: true}, "CREATED AT", "DRIVER", "NETWORK ID", "IPV4", "IPV6", "INTERNAL", "LABELS", "NAME", "SCOPE"}}
		return t.Print(a.Stdout, a.listFormat("networksFormat", fm, quiet), quiet, rows)
	})
	c.Aliases = []string{"list"}
	f := c.Flags()
	f.StringArrayVarP(&filter, "filter", "f", nil, "Show only what matches (key=value)")
	f.StringVar(&fm, "format", "", "Format of the output: table, json, or a Go template")
	f.BoolVar(&noTrunc, "no-trunc", false, "Do not shorten")
	f.BoolVarP(&quiet, "quiet", "q", false, "Show IDs only")
	return c
}

func networkCreate(a *app) *cobra.Command {
	req := network.CreateRequest{}
	var o struct {
		v4, v6                                         bool
		subnets, ranges, gateways, aux, opts, ipamOpts []string
		labels                                         []string
		ipam, from                                     string
	}
	c := words("create [OPTIONS] NETWORK", "Create a network", "dhow network create --subnet 10.7.0.0/24 back", exactArgs(1),
		func(c *cobra.Command, args []string) error {
			req.Name = args[0]
			if c.Flags().Changed("ipv4") {
				req.EnableIPv4 = &o.v4
			}
			if c.Flags().Changed("ipv6") {
				req.EnableIPv6 = &o.v6
			}
			req.Options, req.Labels = create.Pairs(o.opts), create.Pairs(o.labels)
			if o.from != "" {
				req.ConfigFrom = &network.ConfigReference{Network: o.from}
			}
			conf, err := ipamConfig(o.subnets, o.ranges, o.gateways, o.aux)
			if err != nil {
				return usage(c, exitError, err)
			}
			req.IPAM = &network.IPAM{Driver: o.ipam, Options: create.Pairs(o.ipamOpts), Config: conf}
			api, err := a.client()
			if err != nil {
				return err
			}
			var resp network.CreateResponse
			if err := api.Post(c.Context(), "/networks/create", nil, req, &resp); err != nil {
				return err
			}
			if resp.Warning != "" {
				fmt.Fprintln(a.Stderr, "WARNING: "+format.Safe(resp.Warning))
			}
			a.out(resp.ID)
			return nil
		})
	f := c.Flags()
	f.StringVarP(&req.Driver, "driver", "d", "bridge", "Driver of the network")
	f.StringVar(&req.Scope, "scope", "", "Scope of the network")
	f.BoolVar(&req.Internal, "internal", false, "No way out of the network")
	f.BoolVar(&req.Attachable, "attachable", false, "Let containers attach by hand")
	f.BoolVar(&req.Ingress, "ingress", false, "Make it a swarm's ingress network")
	f.BoolVar(&req.ConfigOnly, "config-only", false, "Keep a configuration only")
	f.StringVar(&o.from, "config-from", "", "Network to take the configuration from")
	f.BoolVar(&o.v4, "ipv4", true, "IPv4 addresses")
	f.BoolVar(&o.v6, "ipv6", false, "IPv6 addresses")
	f.StringArrayVarP(&o.opts, "opt", "o", nil, "Options of the driver (K=V)")
	f.StringArrayVar(&o.labels, "label", nil, "Labels of the network (K=V)")
	ipamFlags(f, &o.subnets, &o.ranges, &o.gateways, &o.aux)
	f.StringVar(&o.ipam, "ipam-driver", "default", "Driver of address management")
	f.StringArrayVar(&o.ipamOpts, "ipam-opt", nil, "Options of address management (K=V)")
	return c
}

func ipamFlags(f *pflag.FlagSet, subnets, ranges, gateways, aux *[]string) {
	f.StringSliceVar(subnets, "subnet", nil, "Subnet in CIDR notation")
	f.StringSliceVar(ranges, "ip-range", nil, "Part of the subnet to give addresses from")
	f.StringSliceVar(gateways, "gateway", nil, "Gateway of the subnet")
	f.StringArrayVar(aux, "aux-address", nil, "Addresses that are taken (name=address)")
}

// ipamConfig gives every subnet its range, gateway and taken addresses.
func ipamConfig(subnets, ranges, gateways, aux []string) ([]network.IPAMConfig, error) {
	var out []network.IPAMConfig
	for _, s := range subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("--subnet %q: want an address and a prefix length, like 10.7.0.0/24", s)
		}
		out = append(out, network.IPAMConfig{Subnet: p})
	}
	in := func(flag, s string, addr netip.Addr) (*network.IPAMConfig, error) {
		for i := range out {
			if out[i].Subnet.Contains(addr) {
				return &out[i], nil
			}
		}
		return nil, fmt.Errorf("--%s %s: no --subnet contains it", flag, s)
	}
	for _, s := range ranges {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("--ip-range %q: want an address and a prefix length", s)
		}
		c, err := in("ip-range", s, p.Addr())
		if err != nil {
			return nil, err
		}
		c.IPRange = p
	}
	for _, s := range gateways {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("--gateway %q: not an IP address", s)
		}
		c, err := in("gateway", s, addr)
		if err != nil {
			return nil, err
		}
		c.Gateway = addr
	}
	for _, s := range aux {
		name, v, _ := strings.Cut(s, "=")
		addr, err := netip.ParseAddr(v)
		if err != nil || name == "" {
			return nil, fmt.Errorf("--aux-address %q: want name=address", s)
		}
		c, err := in("aux-address", s, addr)
		if err != nil {
			return nil, err
		}
		if c.AuxAddress == nil {
			c.AuxAddress = map[string]netip.Addr{}
		}
		c.AuxAddress[name] = addr
	}
	return out, nil
}

func networkRm(a *app) *cobra.Command {
	var force bool
	c := words("rm NETWORK [NETWORK...]", "Remove networks", "dhow network rm back", minArgs(1), func(c *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.forEach(args, func(n string) error {
			err := api.Delete(c.Context(), "/networks/"+url.PathEscape(n), nil, nil)
			if force && isMissing(err) {
				return nil
			}
			return err
		})
	})
	c.Aliases = []string{"remove"}
	c.Flags().BoolVarP(&force, "force", "f", false, "No error when the network does not exist")
	return c
}

func networkConnect(a *app) *cobra.Command {
	var ip, ip6 string
	var aliases, links, opts, local []string
	var prio int
	c := words("connect [OPTIONS] NETWORK CONTAINER", "Connect a container to a network", "dhow network connect --alias db back postgres", exactArgs(2),
		func(c *cobra.Command, args []string) error {
			ep := &network.EndpointSettings{Aliases: aliases, Links: links, DriverOpts: create.Pairs(opts), GwPriority: prio}
			ipam := &network.EndpointIPAMConfig{}
			for _, w := range []struct {
				flag, s string
				to      *netip.Addr
			}{{"ip", ip, &ipam.IPv4Address}, {"ip6", ip6, &ipam.IPv6Address}} {
				if w.s == "" {
					continue
				}
				v, err := netip.ParseAddr(w.s)
				if err != nil || v.Is4() != (w.flag == "ip") {
					return usage(c, exitError, fmt.Errorf("--%s %q: not such an address", w.flag, w.s))
				}
				*w.to, ep.IPAMConfig = v, ipam
			}
			for _, s := range local {
				v, err := netip.ParseAddr(s)
				if err != nil {
					return usage(c, exitError, fmt.Errorf("--link-local-ip %q: not an IP address", s))
				}
				ipam.LinkLocalIPs, ep.IPAMConfig = append(ipam.LinkLocalIPs, v), ipam
			}
			api, err := a.client()
			if err != nil {
				return err
			}
			return api.Post(c.Context(), "/networks/"+url.PathEscape(args[0])+"/connect", nil, network.ConnectRequest{Container: args[1], EndpointConfig: ep}, nil)
		})
	f := c.Flags()
	f.StringArrayVar(&aliases, "alias", nil, "Names of the container in the network")
	f.StringVar(&ip, "ip", "", "IPv4 address")
	f.StringVar(&ip6, "ip6", "", "IPv6 address")
	f.StringArrayVar(&links, "link", nil, "Add a link to another container")
	f.StringArrayVar(&local, "link-local-ip", nil, "Link-local addresses")
	f.StringArrayVar(&opts, "driver-opt", nil, "Options of the driver (K=V)")
	f.IntVar(&prio, "gw-priority", 0, "The network with the highest number has the default gateway")
	return c
}

func networkDisconnect(a *app) *cobra.Command {
	var force bool
	c := words("disconnect [OPTIONS] NETWORK CONTAINER", "Disconnect a container from a network", "dhow network disconnect back postgres", exactArgs(2),
		func(c *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			if args[1] == "" {
				return errors.New("the container's name is empty")
			}
			return api.Post(c.Context(), "/networks/"+url.PathEscape(args[0])+"/disconnect", nil, network.DisconnectRequest{Container: args[1], Force: force}, nil)
		})
	c.Flags().BoolVarP(&force, "force", "f", false, "Disconnect a container that is gone")
	return c
}

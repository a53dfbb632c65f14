package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/network/apply"
)

// connector gives running containers their networks and takes them back.
type connector struct {
	*core
	places allocator
	names  resolvers
}

// Connect gives a container its network: a namespace with its links, and its ports on the host. When it fails, nothing stays.
func (c connector) Connect(ctx context.Context, req Request) (*Sandbox, error) {
	if err := errors.Join(checkRequest(req), canceled(ctx)); err != nil {
		return nil, err
	}
	r, warnings, err := c.places.allocate(req)
	if err != nil {
		return nil, err
	}
	box, err := c.carryOut(req, r)
	if err != nil {
		return nil, errors.Join(err, c.withdraw(r))
	}
	box.Warnings = warnings
	return box, nil
}

// carryOut makes kernel objects and the record of an allocated container.
func (c connector) carryOut(req Request, r *record) (*Sandbox, error) {
	files, err := c.files(req, r)
	if err != nil {
		return nil, err
	}
	var listen func() error
	var socks resolverSockets
	if r.Resolver {
		listen = func() (err error) { socks, err = listenDNS(); return err }
	}
	ns, err := apply.Namespace(c.host, &r.Plan, listen)
	if err != nil {
		socks.close()
		return nil, fmt.Errorf("network of container %s: %w", id.Short(r.Container), err)
	}
	c.mu.Lock()
	for i, l := range r.Plan.Links {
		r.Endpoints[i].HostLink = l.Name
	}
	c.mu.Unlock()
	err = c.publish(r)
	if err == nil {
		err = c.cfg.Records.Put(keySandbox+r.Container, r)
	}
	if err != nil {
		socks.close()
		ns.Close()
		return nil, err
	}
	if r.Resolver {
		c.names.serve(r, socks)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return &Sandbox{Netns: ns, Endpoints: slices.Clone(r.Endpoints), Ports: slices.Clone(r.Ports), Hosts: files.hosts, Resolv: files.resolv}, nil
}

// Disconnect takes a container's ports and addresses back. It does not touch the namespace: the kernel removes that with its
// last holder. A container that is not connected is success.
func (c connector) Disconnect(ctx context.Context, containerID string) error {
	c.mu.Lock()
	r := c.boxes[containerID]
	c.mu.Unlock()
	if r == nil {
		return nil
	}
	return c.withdraw(r)
}

// withdraw undoes an allocation and whatever was carried out of it. The record goes last, so that a crash in between leaves
// something that Reconcile sees.
func (c connector) withdraw(r *record) error {
	c.mu.Lock()
	res := c.dns[r.Container]
	delete(c.dns, r.Container)
	c.mu.Unlock()
	if res != nil {
		res.Close()
	}
	c.rules.Lock()
	err := apply.Unpublish(c.table, owned(r))
	c.rules.Unlock()
	if err != nil {
		return fmt.Errorf("take back ports of container %s: %w", id.Short(r.Container), err)
	}
	go func() { // ends with one pass over the kernel's table; whoever publishes the port next does not rely on it
		if err := forgetDatagrams(r); err != nil {
			c.log.Warn("tracked flows", "container", id.Short(r.Container), "err", err)
		}
	}()
	if err := c.cfg.Records.Delete(keySandbox + r.Container); err != nil {
		return fmt.Errorf("forget network of container %s: %w", id.Short(r.Container), err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.boxes[r.Container] == r {
		delete(c.boxes, r.Container)
		c.places.release(r)
	}
	return nil
}

// files makes the three files' contents and decides whether the container gets the embedded resolver: on user-defined
// networks, and where the host's own servers are out of a container's reach.
func (c connector) files(q Request, r *record) (fileSet, error) {
	h := HostsSpec{Hostname: q.Hostname, Domainname: q.Domainname, Extra: q.ExtraHosts}
	for _, e := range r.Endpoints {
		h.Addrs = append(h.Addrs, e.IPv4.Addr())
		if e.IPv6.IsValid() {
			h.IPv6, h.Addrs = true, append(h.Addrs, e.IPv6.Addr())
		}
		if e.Default {
			h.Gateway = e.Gateway4
		}
	}
	hosts, err := HostsFile(h)
	if err != nil {
		return fileSet{}, err
	}
	conf := c.cfg.HostResolv()
	if len(r.Endpoints) > 0 && len(q.DNS) == 0 && len(outside(nameservers(conf))) == 0 && len(nameservers(conf)) > 0 {
		r.Resolver = true
	}
	r.Upstream = q.DNS
	resolv, err := ResolvConf(ResolvSpec{Host: conf, Servers: q.DNS, Search: q.Search, Options: q.Options, Embedded: r.Resolver, IPv6: h.IPv6})
	return fileSet{hosts, resolv}, err
}

// Files are /etc/hosts and /etc/resolv.conf of a connected container as they should be now; q is what Connect was asked.
func (c connector) Files(q Request) (hosts, resolv []byte, err error) {
	c.mu.Lock()
	r := c.boxes[q.ContainerID]
	if r == nil {
		c.mu.Unlock()
		return nil, nil, errdef.New(errdef.NotFound, "container %s has no network", id.Short(q.ContainerID))
	}
	now := *r
	now.Endpoints = slices.Clone(r.Endpoints)
	c.mu.Unlock()
	f, err := c.files(q, &now)
	return f.hosts, f.resolv, err
}

type fileSet struct{ hosts, resolv []byte }

// OpenNetns returns the namespace of a process, for --network container:X.
func OpenNetns(pid int) (*os.File, error) { return netlink.OpenNetns(pid) }

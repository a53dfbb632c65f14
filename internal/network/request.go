package network

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/network/plan"
)

// checkRequest refuses what can be seen to be wrong before anything is taken.
func checkRequest(q Request) error {
	if len(q.ContainerID) < 12 {
		return errdef.New(errdef.InvalidArgument, "container ID %q: too short", q.ContainerID)
	}
	for _, p := range q.Ports {
		if _, ok := plan.ProtoNumber(p.Proto); !ok {
			return errdef.New(errdef.InvalidArgument, "-p %s: unknown protocol %q: use tcp, udp or sctp", p, p.Proto)
		}
		if p.ContainerPort == 0 || p.HostPortEnd != 0 && p.HostPortEnd < p.HostPort || p.HostPort == 0 && p.HostPortEnd != 0 {
			return errdef.New(errdef.InvalidArgument, "-p %s: no such port or range", p)
		}
	}
	for _, e := range q.Endpoints {
		if e.MAC != nil && (len(e.MAC) != 6 || e.MAC[0]&1 != 0) {
			return errdef.New(errdef.InvalidArgument, "mac address %s: want six bytes, not a multicast address", e.MAC)
		}
	}
	return nil
}

// String prints the port the way it was asked for.
func (p Port) String() string {
	var b strings.Builder
	if p.HostIP.Is6() {
		b.WriteString("[" + p.HostIP.String() + "]:")
	} else if p.HostIP.IsValid() {
		b.WriteString(p.HostIP.String() + ":")
	}
	if p.HostPort != 0 {
		b.WriteString(strconv.Itoa(int(p.HostPort)))
	}
	if p.HostPortEnd > p.HostPort {
		b.WriteString("-" + strconv.Itoa(int(p.HostPortEnd)))
	}
	if b.Len() > 0 {
		b.WriteString(":")
	}
	b.WriteString(strconv.Itoa(int(p.ContainerPort)))
	if p.Proto != "" && p.Proto != "tcp" {
		b.WriteString("/" + p.Proto)
	}
	return b.String()
}

// canceled tells whether the caller gave up, before work that is not worth starting.
func canceled(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("connect container: %w", err)
	}
	return nil
}

// Package network owns networks, the endpoints of containers on them and the host ports that lead to containers.
//
// It promises that whatever a call did before it failed is undone, that addresses and ports are given out once, that a
// container's namespace lives only as a descriptor (so the kernel removes it, and its links, when the last holder is gone),
// and that traffic of live containers goes on while the engine is restarted. It must never start or look at a container's
// processes, and never change a table, bridge or address that dhow did not make.
package network

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/dhow-containers/dhow/internal/network/ipam"
	"github.com/dhow-containers/dhow/internal/network/plan"
)

// Names of the predefined networks.
const (
	NameBridge = "bridge"
	NameHost   = "host"
	NameNone   = "none"
)

// Drivers. DriverBridge is the only one with endpoints of ours.
const (
	DriverBridge = "bridge"
	DriverHost   = "host"
	DriverNull   = "null"
)

// Records is where the service keeps what must outlive the engine. Keys are paths such as "network/ID"; Each visits all of them.
type Records interface {
	Put(key string, v any) error
	Get(key string, v any) (bool, error)
	Delete(key string) error
	Each(func(key string, raw []byte) error) error
}

// Config is what Open needs; only Records is required.
type Config struct {
	Records     Records
	Log         *slog.Logger
	Table       string       // nft table, "dhow"
	Bridge      string       // device of the default network; "": as recorded, at first "dhow0"
	BridgeIPv6  bool         // the default network has IPv6 too
	BridgeNet   netip.Prefix // subnet of the default network; invalid: the first free one
	Pools       []ipam.Block // where networks without --subnet come from
	MTU         int          // of new links; 0: 1500
	PublishAddr netip.Addr   // where ports without an address are published; invalid: on every address of the host
	HostResolv  func() []byte
	Now         func() time.Time
}

// Network is one network, as stored and as inspected.
type Network struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Driver     string            `json:"driver"`
	Subnets    []Subnet          `json:"subnets,omitempty"`
	Internal   bool              `json:"internal,omitempty"`
	EnableIPv6 bool              `json:"enable_ipv6,omitempty"`
	Attachable bool              `json:"attachable,omitempty"`
	Options    map[string]string `json:"options,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Created    time.Time         `json:"created"`
	Device     string            `json:"device,omitempty"` // the bridge on the host
	Predefined bool              `json:"predefined,omitempty"`
}

// Subnet is one address range of a network. In a Create request everything may be left out but the family is then IPv4.
type Subnet struct {
	Prefix  netip.Prefix          `json:"prefix"`
	Range   netip.Prefix          `json:"range,omitzero"`
	Gateway netip.Addr            `json:"gateway,omitzero"`
	Aux     map[string]netip.Addr `json:"aux,omitempty"` // addresses that are somebody else's
}

// Request asks for a container's network. No endpoints means mode none: a namespace with lo alone.
type Request struct {
	ContainerID string
	Name        string
	Hostname    string
	Domainname  string
	Endpoints   []EndpointRequest
	Ports       []Port
	DNS         []string
	Search      []string
	Options     []string
	ExtraHosts  []string // "name:address"
	Sysctls     map[string]string
}

// EndpointRequest asks for a place in one network, named by name or ID.
type EndpointRequest struct {
	Network string
	Aliases []string
	IPv4    netip.Addr
	IPv6    netip.Addr
	MAC     net.HardwareAddr
}

// Port asks for a published port. HostPort 0 takes an ephemeral one; HostPortEnd > HostPort takes the first free of the range.
type Port struct {
	Proto         string // tcp (also when empty), udp, sctp
	HostIP        netip.Addr
	HostPort      uint16
	HostPortEnd   uint16
	ContainerPort uint16
}

// Bound is a published port as it came out: one per host address family.
type Bound struct {
	Proto         string     `json:"proto"`
	HostIP        netip.Addr `json:"host_ip"`
	HostPort      uint16     `json:"host_port"`
	ContainerPort uint16     `json:"container_port"`
}

// Endpoint is a container's place in one network.
type Endpoint struct {
	ID          string       `json:"id"`
	NetworkID   string       `json:"network_id"`
	NetworkName string       `json:"network_name"`
	Interface   string       `json:"interface"` // in the container
	HostLink    string       `json:"host_link"`
	MAC         string       `json:"mac"`
	IPv4        netip.Prefix `json:"ipv4,omitzero"`
	Gateway4    netip.Addr   `json:"gateway4,omitzero"`
	IPv6        netip.Prefix `json:"ipv6,omitzero"`
	Gateway6    netip.Addr   `json:"gateway6,omitzero"`
	Names       []string     `json:"names,omitempty"` // what the embedded DNS answers to
	Default     bool         `json:"default,omitempty"`
}

// Sandbox is what Connect made. Netns is the caller's to close, which is what takes the network away.
type Sandbox struct {
	Netns     *os.File
	Endpoints []Endpoint
	Ports     []Bound
	Hosts     []byte // content of /etc/hosts
	Resolv    []byte // content of /etc/resolv.conf
	Warnings  []string
}

// LiveContainer names a container that is running, and a process in its namespace.
type LiveContainer struct {
	ID  string
	Pid int
}

// record is what is stored of a connected container.
type record struct {
	Container string     `json:"container"`
	Name      string     `json:"name"`
	Hostname  string     `json:"hostname"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	Ports     []Bound    `json:"ports,omitempty"`
	Upstream  []string   `json:"upstream,omitempty"` // name servers behind the embedded DNS, "" for the host's
	Resolver  bool       `json:"resolver,omitempty"`
	Plan      plan.Plan  `json:"plan"`
}

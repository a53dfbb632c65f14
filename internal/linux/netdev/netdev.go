// Package netdev moves network devices from one network namespace into another.
//
// It promises that a device arrives with its lasting addresses and up, that one that cannot arrive is where it was, and that a move can be
// taken back. It speaks rtnetlink itself, so that the runtime stays light. It must never decide which device goes where.
package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Moved is a device that was moved; Close it, or take the move back.
type Moved struct {
	home      *os.File // the namespace it comes from
	there     int      // the one it is in
	name      string   // that it had
	index     uint32   // that it has
	up        bool     // it was up
	addresses []address
}

// Move moves the device called name of the calling thread's network namespace into the one of descriptor ns, under another name where one
// is given; in that name %d stands for the first free number.
func Move(name, as string, ns int) (m *Moved, err error) {
	here, err := dial()
	if err != nil {
		return nil, err
	}
	defer here.close()
	l, err := here.link(name)
	if err != nil {
		return nil, err
	}
	m = &Moved{name: name, up: l.flags&unix.IFF_UP != 0}
	if m.addresses, err = here.addresses(l.index); err != nil {
		return nil, fmt.Errorf("its addresses: %w", err)
	}
	if m.there, err = unix.FcntlInt(uintptr(ns), unix.F_DUPFD_CLOEXEC, 3); err != nil {
		return nil, err
	}
	if m.home, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		unix.Close(m.there)
		return nil, err
	}
	there, err := dialIn(ns)
	if err != nil {
		m.Close()
		return nil, err
	}
	defer there.close()
	if m.index, err = transfer(here, there, l, as, ns); err != nil {
		m.Close()
		return nil, err
	}
	if err := there.settle(m.index, m.addresses, true); err != nil {
		if back := m.Back(); back != nil {
			err = fmt.Errorf("%w (and taking it back: %v)", err, back)
		}
		return nil, err
	}
	return m, nil
}

// Close forgets the move, which stays.
func (m *Moved) Close() {
	m.home.Close()
	unix.Close(m.there)
}

// Back takes the move back, and closes m: the device has its name, its lasting addresses and its state again. Routes over it are lost.
func (m *Moved) Back() error {
	defer m.Close()
	there, err := dialIn(m.there)
	if err != nil {
		return err
	}
	defer there.close()
	l, err := there.linkBy(m.index, "")
	if err != nil {
		return err
	}
	here, err := dialIn(int(m.home.Fd()))
	if err != nil {
		return err
	}
	defer here.close()
	index, err := transfer(there, here, l, m.name, int(m.home.Fd()))
	if err != nil {
		return err
	}
	return here.settle(index, m.addresses, m.up)
}

// transfer moves a device between the namespaces of two sockets and returns its index there.
func transfer(from, to *socket, l link, as string, ns int) (uint32, error) {
	if as == "" {
		as = l.name
	}
	template := strings.Contains(as, "%d")
	if !template {
		if _, err := to.link(as); err == nil {
			return 0, fmt.Errorf("a device called %s is there already: %w", as, unix.EEXIST)
		}
	}
	before, err := to.links()
	if err != nil {
		return 0, err
	}
	body := attribute(attribute(linkHeader(l.index, 0, 0), unix.IFLA_NET_NS_FD, word(uint32(ns))), unix.IFLA_IFNAME, text(as))
	_, moveErr := from.call(unix.RTM_NEWLINK, unix.NLM_F_ACK, body)
	if moveErr != nil {
		if still, err := from.linkBy(l.index, ""); err == nil && still.name == l.name { // it did not go, and the kernel has left it as it was
			return 0, fmt.Errorf("move it: %w", moveErr)
		}
	}
	after, err := to.links()
	if err != nil {
		return 0, err
	}
	for index, name := range after {
		if _, old := before[index]; !old && (template || name == as || name == l.name) {
			if moveErr != nil { // it went, but could not get its name
				return 0, fmt.Errorf("call it %s: %w", as, moveErr)
			}
			return index, nil
		}
	}
	return 0, fmt.Errorf("it is not there after the move: %w", unix.ENODEV)
}

// link is a network device.
type link struct {
	index, flags uint32
	name         string
}

// linkHeader is struct ifinfomsg.
func linkHeader(index, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

func (s *socket) link(name string) (link, error) { return s.linkBy(0, name) }

func (s *socket) linkBy(index uint32, name string) (link, error) {
	body := linkHeader(index, 0, 0)
	if name != "" {
		body = attribute(body, unix.IFLA_IFNAME, text(name))
	}
	list, err := s.call(unix.RTM_GETLINK, 0, body)
	if errors.Is(err, unix.ENODEV) {
		return link{}, fmt.Errorf("there is no such network device: %w", err)
	}
	if err != nil {
		return link{}, err
	}
	for _, m := range list {
		if l, ok := parseLink(m); ok {
			return l, nil
		}
	}
	return link{}, unix.EBADMSG
}

func parseLink(m message) (link, bool) {
	if m.kind != unix.RTM_NEWLINK || len(m.body) < unix.SizeofIfInfomsg {
		return link{}, false
	}
	name, _, _ := strings.Cut(string(attributes(m.body[unix.SizeofIfInfomsg:])[unix.IFLA_IFNAME]), "\x00")
	return link{index: binary.NativeEndian.Uint32(m.body[4:]), flags: binary.NativeEndian.Uint32(m.body[8:]), name: name}, true
}

// links returns the names of all devices by their indexes.
func (s *socket) links() (map[uint32]string, error) {
	list, err := s.call(unix.RTM_GETLINK, unix.NLM_F_DUMP, linkHeader(0, 0, 0))
	out := map[uint32]string{}
	for _, m := range list {
		if l, ok := parseLink(m); ok {
			out[l.index] = l.name
		}
	}
	return out, err
}

func (s *socket) up(index uint32, up bool) error {
	flags := uint32(0)
	if up {
		flags = unix.IFF_UP
	}
	_, err := s.call(unix.RTM_NEWLINK, unix.NLM_F_ACK, linkHeader(index, flags, unix.IFF_UP))
	return err
}

// address is one address of a device, as the kernel tells it.
type address struct {
	family, prefix byte
	flags          uint32
	values         map[uint16][]byte
}

// addresses returns the addresses of a device that last (IFA_F_PERMANENT) and are meant for everywhere (RT_SCOPE_UNIVERSE).
func (s *socket) addresses(index uint32) ([]address, error) {
	header := make([]byte, unix.SizeofIfAddrmsg)
	list, err := s.call(unix.RTM_GETADDR, unix.NLM_F_DUMP, header)
	if err != nil {
		return nil, err
	}
	var out []address
	for _, m := range list {
		if m.kind != unix.RTM_NEWADDR || len(m.body) < unix.SizeofIfAddrmsg || binary.NativeEndian.Uint32(m.body[4:]) != index {
			continue
		}
		values := attributes(m.body[unix.SizeofIfAddrmsg:])
		a := address{family: m.body[0], prefix: m.body[1], flags: uint32(m.body[2]), values: values}
		if f := values[unix.IFA_FLAGS]; len(f) == 4 {
			a.flags = binary.NativeEndian.Uint32(f)
		}
		if a.flags&unix.IFA_F_PERMANENT != 0 && m.body[3] == unix.RT_SCOPE_UNIVERSE {
			out = append(out, a)
		}
	}
	return out, nil
}

// settle gives a device addresses and sets it up.
func (s *socket) settle(index uint32, list []address, up bool) error {
	const kept = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN
	for _, a := range list {
		body := make([]byte, unix.SizeofIfAddrmsg)
		body[0], body[1], body[3] = a.family, a.prefix, unix.RT_SCOPE_UNIVERSE
		binary.NativeEndian.PutUint32(body[4:], index)
		for _, kind := range []uint16{unix.IFA_LOCAL, unix.IFA_ADDRESS, unix.IFA_BROADCAST, unix.IFA_RT_PRIORITY} {
			if v, ok := a.values[kind]; ok {
				body = attribute(body, kind, v)
			}
		}
		body = attribute(body, unix.IFA_FLAGS, word(a.flags&kept))
		if _, err := s.call(unix.RTM_NEWADDR, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body); err != nil {
			return fmt.Errorf("give it its address: %w", err)
		}
	}
	if !up {
		return nil
	}
	if err := s.up(index, true); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	return nil
}

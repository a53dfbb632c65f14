// Package systemd asks systemd for transient scopes, over D-Bus, and takes them back.
//
// It owns the few D-Bus messages that this takes, over a unix socket and without the net package, since the runtime must start in a
// millisecond. It promises bounded waiting and reading. It must never start a program, nor touch a cgroup file.
package systemd

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// patience bounds every wait for an answer; a busy systemd takes seconds.
const patience = 30 * time.Second

// Address is a socket on which systemd can be reached: its own, or a message bus.
type Address struct {
	Path string // "@" begins an abstract name
	Bus  bool
}

// Addresses lists where to look for the system's instance or, with user, the caller's own, in order: systemd's own socket costs one hop
// less and works without a bus.
func Addresses(user bool, uid int, getenv func(string) string) []Address {
	if !user {
		out := []Address{{Path: "/run/systemd/private"}}
		if bus := busAddresses(getenv("DBUS_SYSTEM_BUS_ADDRESS")); len(bus) > 0 {
			return append(out, bus...)
		}
		return append(out, Address{Path: "/run/dbus/system_bus_socket", Bus: true})
	}
	dir := getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = "/run/user/" + strconv.Itoa(uid)
	}
	out := []Address{{Path: dir + "/systemd/private"}}
	if bus := busAddresses(getenv("DBUS_SESSION_BUS_ADDRESS")); len(bus) > 0 {
		return append(out, bus...)
	}
	return append(out, Address{Path: dir + "/bus", Bus: true})
}

// busAddresses reads "unix:path=/run/x,guid=...;unix:abstract=y"; other transports are passed over.
func busAddresses(s string) []Address {
	var out []Address
	for _, one := range strings.Split(s, ";") {
		rest, ok := strings.CutPrefix(one, "unix:")
		if !ok {
			continue
		}
		for _, kv := range strings.Split(rest, ",") {
			k, v, _ := strings.Cut(kv, "=")
			if v = unescape(v); v == "" || strings.ContainsRune(v, 0) {
				continue
			}
			switch k {
			case "path":
				out = append(out, Address{v, true})
			case "abstract":
				out = append(out, Address{"@" + v, true})
			}
		}
	}
	return out
}

// unescape undoes %XX; "" if it is none.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return ""
		}
		n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return ""
		}
		b.WriteByte(byte(n))
		i += 2
	}
	return b.String()
}

// Conn is a connection to systemd, for one goroutine.
type Conn struct {
	fd      int
	bus     bool
	serial  uint32
	in      []byte
	signals []message // that came while we waited for something else
}

// Dial connects to the first address that answers.
func Dial(addresses []Address) (*Conn, error) {
	var errs []error
	for _, a := range addresses {
		c, err := dial(a)
		if err == nil {
			return c, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", a.Path, err))
	}
	return nil, errdef.New(errdef.Unavailable, "systemd does not answer: %w; is it running? else leave --systemd-cgroup out", errors.Join(errs...))
}

func dial(a Address) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c := &Conn{fd: fd, bus: a.Bus}
	if err := c.open(a); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) open(a Address) error {
	limit := unix.NsecToTimeval(int64(patience))
	if err := errors.Join(unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)); err != nil {
		return err
	}
	if err := unix.Connect(c.fd, &unix.SockaddrUnix{Name: a.Path}); err != nil {
		return err
	}
	if err := c.authenticate(); err != nil {
		return err
	}
	if !c.bus {
		return nil
	}
	bus := call{dest: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", iface: "org.freedesktop.DBus"}
	hello := bus
	hello.member = "Hello"
	if _, err := c.call(&hello); err != nil {
		return err
	}
	match := bus
	match.member, match.sig = "AddMatch", "s"
	var e encoder
	e.str("type='signal',interface='" + managerInterface + "',member='JobRemoved',path='" + managerPath + "'")
	match.body = e.buf
	if _, err := c.call(&match); err != nil {
		return err
	}
	_, err := c.manager("Subscribe", "", nil) // systemd sends signals to a bus only while someone wants them
	return err
}

// authenticate says who we are by the socket's credentials: with the empty identity the peer takes what the kernel tells it, which is
// right in a user namespace, too (D-Bus Specification, Authentication Protocol, EXTERNAL). All lines go at once, as sd-bus sends them: a
// message that reaches systemd in one read with BEGIN would wait there until another follows.
func (c *Conn) authenticate() error {
	if err := c.write([]byte("\x00AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")); err != nil {
		return err
	}
	for {
		line, err := c.line()
		switch {
		case err != nil:
			return err
		case line == "DATA" || strings.HasPrefix(line, "DATA "):
		case strings.HasPrefix(line, "OK"):
			return nil
		default:
			return errdef.New(errdef.Forbidden, "refused: %.100q", line)
		}
	}
}

func (c *Conn) line() (string, error) {
	for {
		if i := strings.Index(string(c.in), "\r\n"); i >= 0 {
			line := string(c.in[:i])
			c.in = c.in[i+2:]
			return line, nil
		}
		if len(c.in) > 1024 {
			return "", errdef.New(errdef.DataLoss, "what answers speaks no D-Bus")
		}
		if err := c.fill(); err != nil {
			return "", err
		}
	}
}

// fill reads more into c.in.
func (c *Conn) fill() error {
	var buf [4096]byte
	for {
		n, err := unix.Read(c.fd, buf[:])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return errdef.New(errdef.Unavailable, "no answer from systemd in %v", patience)
		case err != nil:
			return err
		case n == 0:
			return errdef.New(errdef.Unavailable, "systemd closed the connection")
		}
		c.in = append(c.in, buf[:n]...)
		return nil
	}
}

func (c *Conn) write(b []byte) error {
	for len(b) > 0 {
		n, err := unix.SendmsgN(c.fd, b, nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (c *Conn) receive() (message, error) {
	for len(c.in) < 16 {
		if err := c.fill(); err != nil {
			return message{}, err
		}
	}
	n, ok := sizes(c.in[:16])
	if !ok {
		return message{}, errdef.New(errdef.DataLoss, "what systemd answered is no D-Bus message")
	}
	for len(c.in) < 16+n {
		if err := c.fill(); err != nil {
			return message{}, err
		}
	}
	m, ok := parse(c.in[:16+n])
	c.in = append([]byte(nil), c.in[16+n:]...)
	if !ok {
		return m, errdef.New(errdef.DataLoss, "a message of systemd's makes no sense")
	}
	return m, nil
}

// Error is what systemd or the bus answers in place of a result.
type Error struct{ Name, Text string }

func (e *Error) Error() string {
	return strings.TrimPrefix(e.Name, "org.freedesktop.") + ": " + e.Text
}

// call sends a call and waits for its answer; signals that come first are kept.
func (c *Conn) call(m *call) (message, error) {
	c.serial++
	if err := c.write(m.encode(c.serial)); err != nil {
		return message{}, err
	}
	for {
		r, err := c.receive()
		if err != nil {
			return r, err
		}
		switch {
		case r.kind == signalKind:
			const mostKept = 1024
			if len(c.signals) < mostKept {
				c.signals = append(c.signals, r)
			}
		case r.replySerial != c.serial:
		case r.kind == methodError:
			e := &Error{Name: r.errorName}
			if strings.HasPrefix(r.signature, "s") {
				e.Text = r.body.str()
			}
			return r, e
		case r.kind == methodReturn:
			return r, nil
		}
	}
}

// Close ends the connection.
func (c *Conn) Close() { unix.Close(c.fd) }

package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// socket is a rtnetlink socket of one network namespace (rtnetlink(7)).
type socket struct {
	fd  int
	seq uint32
}

func dial() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	const patience = 10 // seconds; the kernel answers at once
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: patience})
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return &socket{fd: fd}, nil
}

// dialIn returns a socket of another network namespace, which it belongs to for good whatever the thread does afterwards.
func dialIn(ns int) (s *socket, err error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer home.Close()
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("setns: %w", err)
	}
	s, err = dial()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil { // the thread stays locked: it dies with its goroutine
		return nil, fmt.Errorf("return from network namespace: %w", back)
	}
	runtime.UnlockOSThread()
	return s, err
}

func (s *socket) close() { unix.Close(s.fd) }

// message is the body of one answer.
type message struct {
	kind uint16
	body []byte
}

// call sends a request and returns the answers up to the acknowledgement or the end of a dump.
func (s *socket) call(kind, flags uint16, body []byte) ([]message, error) {
	s.seq++
	head := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(body))
	binary.NativeEndian.PutUint32(head, uint32(unix.NLMSG_HDRLEN+len(body)))
	binary.NativeEndian.PutUint16(head[4:], kind)
	binary.NativeEndian.PutUint16(head[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(head[8:], s.seq)
	if err := unix.Sendto(s.fd, append(head, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var out []message
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		more, done, err := s.take(append([]byte(nil), buf[:n]...), flags)
		out = append(out, more...)
		if err != nil || done {
			return out, err
		}
	}
}

// take splits one datagram into messages.
func (s *socket) take(b []byte, flags uint16) (out []message, done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		n := int(binary.NativeEndian.Uint32(b))
		if n < unix.NLMSG_HDRLEN || n > len(b) {
			return out, true, unix.EBADMSG
		}
		kind, seq, body := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:n]
		b = b[min(align(n), len(b)):]
		if seq != s.seq {
			continue
		}
		switch kind {
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return out, true, unix.EBADMSG
			}
			if e := int32(binary.NativeEndian.Uint32(body)); e != 0 {
				return out, true, unix.Errno(-e)
			}
			return out, true, nil
		case unix.NLMSG_DONE:
			return out, true, nil
		}
		out = append(out, message{kind, body})
		if flags&(unix.NLM_F_DUMP|unix.NLM_F_ACK) == 0 {
			return out, true, nil
		}
	}
	return out, false, nil
}

func align(n int) int { return (n + 3) &^ 3 }

// attribute appends a struct rtattr.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, align(len(value))-len(value))...)
}

// attributes reads a list of struct rtattr; of a kind that stands twice the last counts.
func attributes(b []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			break
		}
		out[binary.NativeEndian.Uint16(b[2:])] = b[4:n]
		b = b[min(align(n), len(b)):]
	}
	return out
}

func text(s string) []byte { return append([]byte(s), 0) }

func word(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// Package criu drives the program criu (Checkpoint/Restore In Userspace): its protocol, its image of a mount table, its log.
//
// It owns the one process it starts, "criu swrk", and speaks criu's own RPC with it over a socket pair, in an encoding written by hand
// (rpc.proto is stable, and a library for it would weigh more than the runtime). It promises that the process has ended when Close
// returns, and that a failure carries what criu's log said. It must never decide what is dumped or restored, nor start another program.
package criu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Field is a field's number in a message.
type Field int

// Kind is a kind of request or answer (rpc.proto, criu_req_type).
type Kind int

// The requests.
const (
	Dump         Kind = 1
	Restore      Kind = 2
	PreDump      Kind = 4
	notify       Kind = 6
	featureCheck Kind = 9
	version      Kind = 10
)

// The fields of criu_opts.
const (
	ImagesDirFD     Field = 1
	PID             Field = 2
	LeaveRunning    Field = 3
	ExtUnixSk       Field = 4
	TCPEstablished  Field = 5
	EvasiveDevices  Field = 6
	ShellJob        Field = 7
	FileLocks       Field = 8
	LogLevel        Field = 9
	LogFile         Field = 10
	PageServer      Field = 11
	NotifyScripts   Field = 12
	RootDir         Field = 13
	ParentImage     Field = 14
	TrackMem        Field = 15
	AutoDedup       Field = 16
	WorkDirFD       Field = 17
	LinkRemap       Field = 18
	ExtMount        Field = 23
	ManageCgroups   Field = 24
	CgroupRoot      Field = 25
	RestoreSibling  Field = 26
	InheritFD       Field = 27
	CgroupMode      Field = 34
	External        Field = 37
	EmptyNS         Field = 38
	JoinNS          Field = 39
	FreezeCgroup    Field = 44
	TCPSkipInFlight Field = 46
	LazyPages       Field = 48
	OrphanPtsMaster Field = 50
	ConfigFile      Field = 51
	LSMProfile      Field = 53
	LSMMountContext Field = 63
)

// Pair makes the messages of two strings: ext_mount_map, join_namespace, cgroup_root.
func Pair(a, b string) Message {
	var m Message
	m.bytes(1, []byte(a))
	m.bytes(2, []byte(b))
	return m
}

// Numbered makes those of a string and a number: inherit_fd, criu_page_server_info.
func Numbered(s string, n int) Message {
	var m Message
	m.bytes(1, []byte(s))
	m.Int(2, int64(n))
	return m
}

// Notice is what criu tells while it works (criu(8), --action-script). File is the terminal's master of "orphan-pts-master".
type Notice struct {
	Script string
	PID    int
	File   *os.File
}

// Session is a criu that waits for a request.
type Session struct {
	cmd  *exec.Cmd
	sock int
	busy bool // a request was answered in full: criu ends by itself
}

// maxAnswer bounds an answer of criu's, in bytes.
const maxAnswer = 64 << 10

// firstExtra is the descriptor that Extra[0] becomes in criu: 0, 1, 2 and the socket come before.
const firstExtra = 4

// Extra returns the number that the i-th extra file has in criu.
func Extra(i int) int { return firstExtra + i }

// Find returns the path of the program.
func Find() (string, error) {
	if p, err := exec.LookPath("criu"); err == nil {
		return p, nil
	}
	for _, p := range []string{"/usr/local/sbin/criu", "/usr/sbin/criu", "/sbin/criu"} { // engines start runtimes without the sbin folders
		if unix.Access(p, unix.X_OK) == nil {
			return p, nil
		}
	}
	return "", errdef.New(errdef.NotImplemented, "the program criu is not installed: checkpoint and restore need CRIU 3.11 or newer in PATH (Debian package criu)")
}

// Start starts criu in the mount namespace of this thread, with the container's future standard input, output and error.
func Start(stdio [3]*os.File, extra []*os.File) (*Session, error) {
	path, err := Find()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "criu")
	defer theirs.Close()
	cmd := exec.Command(path, "swrk", "3")
	for k, f := range []**os.File{&stdio[0], &stdio[1], &stdio[2]} {
		if *f == nil {
			*f = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}[k]
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio[0], stdio[1], stdio[2]
	cmd.ExtraFiles = append([]*os.File{theirs}, extra...)
	if err := cmd.Start(); err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return &Session{cmd: cmd, sock: pair[0]}, nil
}

// PID is criu's own.
func (s *Session) PID() int { return s.cmd.Process.Pid }

// Close ends criu, if it has not ended, and waits for it.
func (s *Session) Close() {
	if s.sock >= 0 {
		unix.Close(s.sock)
		s.sock = -1
	}
	if !s.busy {
		s.cmd.Process.Kill()
	}
	s.cmd.Process.Wait()
}

// Do sends a request and serves criu's notices until it is answered. Files that a notice carries belong to the callee.
func (s *Session) Do(kind Kind, opts Message, notice func(Notice) error) error {
	var req Message
	req.Int(1, int64(kind))
	req.Sub(2, opts)
	if err := s.send(req); err != nil {
		return err
	}
	for {
		a, err := s.receive()
		if err != nil {
			return err
		}
		if !a.success {
			return a.err()
		}
		if a.kind != notify {
			s.busy = kind != PreDump // which leaves criu waiting for the next round
			return nil
		}
		refused := notice(a.notice)
		var ok Message
		ok.Int(1, int64(notify))
		ok.Bool(3, refused == nil)
		if err := s.send(ok); err != nil {
			return errors.Join(refused, err)
		}
		if refused != nil {
			return refused // Close ends criu, whatever it does now
		}
	}
}

func (s *Session) send(m Message) error {
	if err := unix.Sendto(s.sock, m.b, unix.MSG_NOSIGNAL, nil); err != nil {
		return fmt.Errorf("criu does not listen: %w", err)
	}
	return nil
}

// answer is a criu_resp.
type answer struct {
	kind     Kind
	success  bool
	errno    int
	text     string
	notice   Notice
	number   int            // version, as criu counts: 31700
	features map[Field]bool // of a feature check; what was not asked for is there and false
}

func (a answer) err() error {
	text := strings.Join(strings.Fields(a.text), " ")
	if text == "" && a.errno != 0 {
		text = unix.Errno(a.errno).Error()
	}
	if text == "" {
		text = "no reason given"
	}
	return errors.New("criu failed: " + text)
}

func (s *Session) receive() (answer, error) {
	buf, oob := make([]byte, maxAnswer), make([]byte, unix.CmsgSpace(4*4))
	var n, on int
	var err error
	for {
		n, on, _, _, err = unix.Recvmsg(s.sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	files := received(oob[:max(on, 0)])
	if err == nil && n == 0 {
		err = errors.New("it ended without an answer")
	}
	if err == nil && n == len(buf) {
		err = errors.New("its answer is too long")
	}
	var a answer
	if err == nil {
		a, err = parseAnswer(buf[:n])
	}
	if len(files) > 0 && err == nil {
		a.notice.File, files = files[0], files[1:]
	}
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		return a, fmt.Errorf("criu failed: %w", err)
	}
	return a, nil
}

func received(oob []byte) []*os.File {
	var out []*os.File
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			out = append(out, os.NewFile(uintptr(fd), "orphan-pts-master"))
		}
	}
	return out
}

func parseAnswer(b []byte) (answer, error) {
	var a answer
	fields, err := decode(b)
	if err != nil {
		return a, err
	}
	for _, f := range fields {
		switch f.field {
		case 1:
			a.kind = Kind(f.num)
		case 2:
			a.success = f.num != 0
		case 5:
			sub, err := decode(f.data)
			if err != nil {
				return a, err
			}
			for _, g := range sub {
				switch g.field {
				case 1:
					a.notice.Script = string(g.data)
				case 2:
					a.notice.PID = int(int32(g.num))
				}
			}
		case 7:
			a.errno = int(int32(f.num))
		case 8:
			sub, err := decode(f.data)
			if err != nil {
				return a, err
			}
			a.features = map[Field]bool{}
			for _, g := range sub {
				a.features[Field(g.field)] = g.num != 0
			}
		case 9:
			a.text = string(f.data)
		case 10:
			if a.number, err = parseVersion(f.data); err != nil {
				return a, err
			}
		}
	}
	return a, nil
}

func parseVersion(b []byte) (int, error) {
	fields, err := decode(b)
	n := 0
	for _, f := range fields {
		if f.field <= 2 {
			n += int(f.num) * [3]int{0, 10000, 100}[f.field]
		}
		if f.field == 4 {
			n += int(f.num)
		}
	}
	return n, err
}

// Version asks criu which it is: 31700 is 3.17.
func Version() (int, error) {
	a, err := ask(version, 0)
	return a.number, err
}

// Features of kernel and criu (criu_features).
const (
	MemTrack      Field = 1
	FeatLazyPages Field = 2
)

// Has asks criu whether it and the kernel have a feature.
func Has(feature Field) (bool, error) {
	a, err := ask(featureCheck, feature)
	return a.features[feature], err
}

func ask(kind Kind, feature Field) (answer, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0) // it warns before it has a log
	if err != nil {
		return answer{}, err
	}
	defer null.Close()
	s, err := Start([3]*os.File{null, null, null}, nil)
	if err != nil {
		return answer{}, err
	}
	defer s.Close()
	var req, features Message
	req.Int(1, int64(kind))
	if feature != 0 {
		features.Bool(feature, true)
		req.Sub(5, features)
	}
	if err := s.send(req); err != nil {
		return answer{}, err
	}
	a, err := s.receive()
	if err == nil && !a.success {
		err = fmt.Errorf("asked what it can do with this kernel (criu check tells more): %w", a.err())
	}
	return a, err
}

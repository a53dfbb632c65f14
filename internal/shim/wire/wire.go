// Package wire owns the language between the engine and a shim: one JSON line each way on a unix socket, after which some
// connections become framed streams.
//
// It promises that either side may be killed at any instant without the other losing data it acknowledged. It must never
// import the engine or the runtime; both sides depend on it.
package wire

import (
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Names of the files that a shim keeps in its run folder (Config.RunDir) and in the container's durable folder (Config.StateDir).
const (
	SocketFile = "shim.sock" // RunDir: listens as long as the shim lives
	ExitFile   = "exit.json" // StateDir: an Exit, written durably before anybody is told
	ConfigFile = "shim.json" // RunDir: the Config it was started with
)

// Config is what the engine tells a shim when it starts it: the file RunDir/shim.json.
type Config struct {
	ID       string        `json:"id"`
	Bundle   string        `json:"bundle"`    // folder of config.json and rootfs.json
	RunDir   string        `json:"run_dir"`   // volatile, under /run; also the shim's working folder
	StateDir string        `json:"state_dir"` // durable, under the data root
	OCIRoot  string        `json:"oci_root"`  // state root of the runtime
	Terminal bool          `json:"terminal"`
	Stdin    bool          `json:"stdin"`      // keep stdin open (docker -i)
	StdinOne bool          `json:"stdin_once"` // close it when the first attached client ends
	Log      LogConfig     `json:"log"`
	Height   uint16        `json:"height,omitempty"`
	Width    uint16        `json:"width,omitempty"`
	Grace    time.Duration `json:"grace,omitempty"` // how long output is still drained after init has ended (default 2 s)
	// Volatile skips the syncs of log and exit file, for a container that is removed when it ends (--rm): after a power loss
	// nobody asks for it.
	Volatile bool `json:"volatile,omitempty"`
}

// LogConfig says where the container's output goes besides attached clients.
type LogConfig struct {
	Driver   string            `json:"driver"` // json-file | none
	Path     string            `json:"path"`   // the current file; rotated ones are Path.1, Path.2, ...
	MaxSize  int64             `json:"max_size"`
	MaxFiles int               `json:"max_files"`
	Attrs    map[string]string `json:"attrs,omitempty"`
}

// Op names a request.
type Op string

// The operations. Create compiles and runs up to the barrier before execve, Start releases it, and creates before where nobody has.
const (
	OpCreate    Op = "create"     // -> Reply.Pid
	OpStart     Op = "start"      // -> Reply.Pid when execve succeeded, or the error
	OpState     Op = "state"      // -> Reply.State
	OpWait      Op = "wait"       // -> Reply.Exit when init has ended (held open until then)
	OpSignal    Op = "signal"     // Request.Signal to init, or to the exec Request.Exec; All: to every process
	OpResize    Op = "resize"     // Request.Height, Width, of init or of Exec
	OpAttach    Op = "attach"     // then the connection is a stream
	OpExec      Op = "exec"       // Request.Exec, Process; then the connection is a stream, its end carries the Exit
	OpExecState Op = "exec-state" // -> Reply.Exec
	OpPause     Op = "pause"
	OpResume    Op = "resume"
	OpUpdate    Op = "update" // Request.Resources
	// OpShutdown ends a shim whose container does not run; with All it kills a running one first. -> when it has been decided.
	OpShutdown Op = "shutdown"
	OpGone     Op = "gone" // answered by nothing but the end of the connection, when the shim ends
)

// Request is the one line that opens a connection.
type Request struct {
	Op        Op                    `json:"op"`
	Signal    int                   `json:"signal,omitempty"`
	All       bool                  `json:"all,omitempty"`
	Exec      string                `json:"exec,omitempty"` // ID of an exec; empty means init
	Process   *specs.Process        `json:"process,omitempty"`
	Resources *specs.LinuxResources `json:"resources,omitempty"`
	Stdin     bool                  `json:"stdin,omitempty"`
	Stdout    bool                  `json:"stdout,omitempty"`
	Stderr    bool                  `json:"stderr,omitempty"`
	Height    uint16                `json:"height,omitempty"`
	Width     uint16                `json:"width,omitempty"`
}

// Reply answers it.
type Reply struct {
	Error string     `json:"error,omitempty"`
	Kind  int        `json:"kind,omitempty"` // errdef.Kind of Error
	Pid   int        `json:"pid,omitempty"`
	State *State     `json:"state,omitempty"`
	Exit  *Exit      `json:"exit,omitempty"`
	Exec  *ExecState `json:"exec,omitempty"`
}

// State is what the shim knows of its container.
type State struct {
	Status    string    `json:"status"` // new | created | running | paused | stopped
	Pid       int       `json:"pid,omitempty"`
	StartTime uint64    `json:"start_time,omitempty"` // field 22 of /proc/PID/stat, clock ticks since boot
	StartedAt time.Time `json:"started_at,omitzero"`
	Exit      *Exit     `json:"exit,omitempty"`
}

// Exit is how a process ended. Code follows the shell: 128+n after signal n.
type Exit struct {
	Code      int       `json:"code"`
	Signal    int       `json:"signal,omitempty"`
	OOMKilled bool      `json:"oom_killed,omitempty"`
	At        time.Time `json:"at"`
	Error     string    `json:"error,omitempty"` // why it never ran, where that is the case
}

// ExecState is an exec as the shim knows it.
type ExecState struct {
	ID   string `json:"id"`
	Pid  int    `json:"pid"`
	Exit *Exit  `json:"exit,omitempty"`
}

// Frame types on a stream. The header is Docker's: type, three zero bytes, big-endian length; so output frames can be passed
// on unchanged (API 1.42, multiplexed-stream).
const (
	FrameStdin  = 0 // client to shim; length 0 means end of file
	FrameStdout = 1
	FrameStderr = 2
	FrameReply  = 3 // shim to client, last: a Reply as JSON (the Exit of an exec, or why the stream ended)
)

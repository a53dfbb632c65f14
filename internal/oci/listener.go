package oci

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// listenerOf returns what hands the seccomp listener of a container's process on (runtime-spec, config-linux.md, The Container Process
// State): of its own process while it is created, or of one that joins it.
func listenerOf(st *state.State, s *bundle.Spec, status specs.ContainerState) func(socket, fd, pid int) error {
	return func(socket, fd, pid int) error {
		msg := specs.ContainerProcessState{Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid, Metadata: s.Linux.Seccomp.ListenerMetadata,
			State: specs.State{Version: specs.Version, ID: st.ID, Status: status, Pid: st.Pid, Bundle: st.Bundle, Annotations: st.Annotations}}
		if status == specs.StateCreating {
			msg.State.Pid = pid
		}
		return sendListener(socket, fd, msg)
	}
}

// sendListener sends one message: the state, with the descriptor. Who closed the socket is told as an error, not by SIGPIPE.
func sendListener(socket, fd int, st specs.ContainerProcessState) error {
	msg, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encode state for the seccomp listener: %w", err)
	}
	for {
		n, err := unix.SendmsgN(socket, msg, unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("send the seccomp listener: %w", err)
		case n < len(msg): // a stream takes what fits; the descriptor went with the first byte
			msg = msg[n:]
			return sendRest(socket, msg)
		}
		return nil
	}
}

func sendRest(socket int, msg []byte) error {
	for len(msg) > 0 {
		n, err := unix.SendmsgN(socket, msg, nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("send the seccomp listener's state: %w", err)
		}
		msg = msg[n:]
	}
	return nil
}

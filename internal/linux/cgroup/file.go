package cgroup

import (
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// write puts a value into a file in one write(2), as cgroup files want it. The error is the bare errno.
func write(file, value string) error {
	fd, err := open(file, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Write(fd, []byte(value))
		if err == unix.EINTR {
			continue
		}
		if err == nil && n != len(value) {
			return io.ErrShortWrite
		}
		return err
	}
}

func open(file string, flags int) (int, error) {
	for {
		fd, err := unix.Open(file, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// read returns a file's content, at most limit bytes; more is an error.
func read(file string, limit int) ([]byte, error) {
	fd, err := open(file, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, 4096)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, fmt.Errorf("read %s: %w", file, err)
		case n == 0:
			return buf, nil
		}
		buf = buf[:len(buf)+n]
		if len(buf) > limit {
			return nil, fmt.Errorf("read %s: more than %d bytes", file, limit)
		}
	}
}

// readUint reads one number.
func readUint(dir, file string) (uint64, error) {
	b, err := read(path.Join(dir, file), maxFile)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse %s: %w", path.Join(dir, file), err)
	}
	return n, nil
}

// readLimit reads a limit; 0 is none.
func readLimit(dir, file string) (uint64, error) {
	b, err := read(path.Join(dir, file), maxFile)
	if err != nil {
		return 0, err
	}
	s := strings.TrimSpace(string(b))
	if s == "max" || s == "-1" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse %s: %w", path.Join(dir, file), err)
	}
	if n >= 1<<63-1<<16 { // v1's "unlimited", rounded down to a page of up to 64 KiB
		return 0, nil
	}
	return n, nil
}

// parseKeyed reads lines "key number" (memory.stat, cpu.stat, memory.events).
func parseKeyed(b []byte) map[string]uint64 {
	m := make(map[string]uint64)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 2 {
			continue
		}
		if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
			m[f[0]] = n
		}
	}
	return m
}

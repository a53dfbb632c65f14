package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/shim/logfile"
	"github.com/dhow-containers/dhow/internal/shim/wire"
)

// logConfig reads --log-driver and --log-opt.
func logConfig(in container.LogConfig, path string) (wire.LogConfig, error) {
	out := wire.LogConfig{Driver: in.Type, Path: path, MaxSize: 10 << 20, MaxFiles: 3}
	switch in.Type {
	case "json-file", "none":
	default:
		return out, errdef.New(errdef.NotImplemented, "HostConfig.LogConfig.Type %q is not implemented: use json-file or none", in.Type)
	}
	return out, logOptions(in.Config, &out)
}

func logOptions(opts map[string]string, out *wire.LogConfig) error {
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		v := opts[k]
		switch k {
		case "max-size":
			n, err := units.RAMInBytes(v)
			if err != nil || n < 4096 && n != -1 {
				return errdef.New(errdef.InvalidArgument, "log option max-size=%s: give a size of at least 4k, such as 10m", v)
			}
			out.MaxSize = n
		case "max-file":
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 || n > 1000 {
				return errdef.New(errdef.InvalidArgument, "log option max-file=%s: give a number from 1 to 1000", v)
			}
			out.MaxFiles = n
		default:
			return errdef.New(errdef.NotImplemented, "log option %s is not implemented", k)
		}
	}
	return nil
}

// logStream implements api.LogStream.
type logStream struct {
	u    *unit
	path string
	o    api.LogOptions
}

// Logs implements api.Containers.
func (s *Service) Logs(_ context.Context, ref string, o api.LogOptions) (api.LogStream, error) {
	u, err := s.table.find(ref)
	if err != nil {
		return nil, err
	}
	if !o.Stdout && !o.Stderr {
		return nil, errdef.New(errdef.InvalidArgument, "Bad parameters: you must choose at least one stream")
	}
	return s.logs(u, o)
}

func (c *core) logs(u *unit, o api.LogOptions) (*logStream, error) {
	conf, err := c.shimConfig(u.rec.Load())
	if err != nil {
		return nil, err
	}
	if conf.Log.Driver == "none" {
		return nil, errdef.New(errdef.NotImplemented, "configured logging driver does not support reading: none")
	}
	return &logStream{u: u, path: conf.Log.Path, o: o}, nil
}

// TTY implements api.LogStream.
func (l *logStream) TTY() bool { return l.u.rec.Load().Config.Tty }

// Copy implements api.LogStream. Following ends when the container has ended and is not about to be restarted.
func (l *logStream) Copy(ctx context.Context, stdout, stderr io.Writer) error {
	o := logfile.Options{Since: l.o.Since, Until: l.o.Until, Tail: l.o.Tail}
	if l.o.Follow {
		o.Follow, o.Done = true, l.u.over(ctx)
	}
	r, err := logfile.Open(l.path, o)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		e, err := r.Next(ctx)
		if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.write(e, stdout, stderr); err != nil {
			return err
		}
	}
}

func (l *logStream) write(e *logfile.Entry, stdout, stderr io.Writer) error {
	w := stdout
	switch {
	case e.Gap, e.Stream == "stdout" && !l.o.Stdout, e.Stream == "stderr" && !l.o.Stderr:
		return nil
	case e.Stream == "stderr" && !l.TTY():
		w = stderr
	}
	line := e.Line
	if l.o.Timestamps {
		line = append([]byte(e.Time.UTC().Format(nano)+" "), line...)
	}
	if _, err := w.Write(line); err != nil {
		return fmt.Errorf("send log: %w", err)
	}
	return nil
}

// nano is RFC 3339 with all nine digits, as Docker prints log times.
const nano = "2006-01-02T15:04:05.000000000Z07:00"

package docker

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// statsPeriod is the time between two samples.
const statsPeriod = time.Second

func containerAttach(c *call) error {
	o := api.AttachOptions{
		Stdin: c.flag("stdin"), Stdout: c.flag("stdout"), Stderr: c.flag("stderr"),
		Logs: c.flag("logs"), Stream: c.flag("stream"), DetachKeys: c.arg("detachKeys"),
	}
	sess, err := c.engine.Containers.Attach(c.ctx, c.param("id"), o)
	if err != nil {
		return err
	}
	return c.hijack(sess, o.Stdin && o.Stream)
}

func containerLogs(c *call) error {
	o := api.LogOptions{
		Stdout: c.flag("stdout"), Stderr: c.flag("stderr"), Follow: c.flag("follow"),
		Timestamps: c.flag("timestamps"), Details: c.flag("details"), Tail: -1,
	}
	if !o.Stdout && !o.Stderr {
		return errdef.New(errdef.InvalidArgument, "Bad parameters: you must choose at least one stream")
	}
	var err error
	if o.Since, err = c.moment("since"); err != nil {
		return err
	}
	if o.Until, err = c.moment("until"); err != nil {
		return err
	}
	if t := c.arg("tail"); t != "" && t != "all" {
		if o.Tail, err = c.integer("tail", -1); err != nil {
			return err
		}
	}
	ls, err := c.engine.Containers.Logs(c.ctx, c.param("id"), o)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", c.streamType(ls.TTY()))
	c.w.WriteHeader(http.StatusOK)
	c.w.flush()
	stdout, stderr := outputs(flusher{c.w}, ls.TTY())
	if err := ls.Copy(c.ctx, stdout, stderr); err != nil && c.ctx.Err() == nil {
		stderr.Write([]byte("Error grabbing logs: " + err.Error() + "\n"))
		c.log.Warn("logs ended", "path", c.r.URL.Path, "err", err)
	}
	return nil
}

// moment reads a time: seconds with an optional fraction, or RFC 3339. Absent and 0 are the zero time.
func (c *call) moment(name string) (time.Time, error) {
	s := c.arg(name)
	if s == "" || s == "0" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	sec, frac, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	var ns int64
	if err == nil && frac != "" {
		ns, err = strconv.ParseInt((frac + "000000000")[:9], 10, 64)
	}
	if err != nil || ns < 0 {
		return time.Time{}, errdef.New(errdef.InvalidArgument, "invalid value for %s: %q is not seconds[.fraction] since 1970 and not an RFC 3339 time", name, s)
	}
	return time.Unix(n, ns), nil
}

// containerWait sends its headers as soon as the wait is registered: clients start the container only then.
func containerWait(c *call) error {
	cond := container.WaitCondition(c.arg("condition"))
	switch cond {
	case "":
		cond = container.WaitConditionNotRunning
	case container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		return errdef.New(errdef.InvalidArgument, "invalid condition: %q", cond)
	}
	ch, err := c.engine.Containers.Wait(c.ctx, c.param("id"), cond)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(http.StatusOK)
	c.w.flush()
	select {
	case <-c.ctx.Done():
		return c.ctx.Err()
	case resp, ok := <-ch:
		if !ok {
			return errdef.New(errdef.System, "wait for container: no answer came")
		}
		return json.NewEncoder(c.w).Encode(resp)
	}
}

// containerStats samples once, twice, or every second, and puts the sample before into each.
func containerStats(c *call) error {
	stream := c.flag("stream") || !c.has("stream")
	one := c.flag("one-shot")
	if stream && one {
		return errdef.New(errdef.InvalidArgument, "cannot have stream=true and one-shot=true")
	}
	v, err := c.engine.Containers.Stats(c.ctx, c.param("id"))
	if err != nil || one {
		return c.done(v, err)
	}
	c.w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(flusher{c.w})
	if stream {
		if err := enc.Encode(v); err != nil {
			return nil // the client is gone
		}
	}
	t := time.NewTicker(statsPeriod)
	defer t.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return nil
		case <-t.C:
		}
		next, err := c.engine.Containers.Stats(c.ctx, c.param("id"))
		if err != nil && errdef.Is(err, errdef.NotFound) && stream {
			return nil // removed meanwhile: the stream ends
		}
		if err != nil {
			return err
		}
		next.PreRead, next.PreCPUStats = v.Read, v.CPUStats
		v = next
		if err := enc.Encode(v); err != nil || !stream {
			return nil
		}
	}
}

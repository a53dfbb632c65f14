package state

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/dhow-containers/dhow/internal/base/jsonread"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
)

// encode gives what json.Marshal would, and decode takes it, both without reflection: every command of the runtime does one or the other.

func (s *State) encode() []byte {
	b := make([]byte, 0, 2048)
	b = text(append(b, `{"ociVersion":`...), s.Version)
	b = text(append(b, `,"id":`...), s.ID)
	b = text(append(b, `,"bundle":`...), s.Bundle)
	b = text(append(b, `,"rootfs":`...), s.Rootfs)
	b = strconv.AppendInt(append(b, `,"pid":`...), int64(s.Pid), 10)
	b = strconv.AppendUint(append(b, `,"start_time":`...), s.StartTime, 10)
	b = s.Created.AppendFormat(append(b, `,"created":"`...), time.RFC3339Nano)
	b = text(append(b, `","cgroup_path":`...), s.CgroupPath)
	b = append(b, `,"cgroups":`...)
	b = array(b, s.Cgroups, func(b []byte, d plan.Dir) []byte {
		b = array(append(b, `{"Controllers":`...), d.Controllers, text)
		b = strconv.AppendBool(append(b, `,"V2":`...), d.V2)
		b = text(append(b, `,"Mount":`...), d.Mount)
		return append(text(append(b, `,"Path":`...), d.Path), '}')
	})
	if len(s.Annotations) > 0 {
		b = append(b, `,"annotations":{`...)
		for i, k := range slices.Sorted(maps.Keys(s.Annotations)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = text(append(text(b, k), ':'), s.Annotations[k])
		}
		b = append(b, '}')
	}
	if s.NoNewKeyring {
		b = append(b, `,"no_new_keyring":true`...)
	}
	if s.Keyring != "" {
		b = text(append(b, `,"keyring":`...), s.Keyring)
	}
	if s.NoHooks {
		b = append(b, `,"no_hooks":true`...)
	}
	if s.SharedPids {
		b = append(b, `,"shared_pids":true`...)
	}
	if s.Notify != "" {
		b = text(append(b, `,"notify":`...), s.Notify)
	}
	if len(s.Resctrl) > 0 {
		b = array(append(b, `,"resctrl":`...), s.Resctrl, text)
	}
	if len(s.Removes) > 0 {
		b = array(append(b, `,"removes":`...), s.Removes, text)
	}
	if s.Unit != "" {
		b = text(append(b, `,"systemd_unit":`...), s.Unit)
	}
	if s.UserUnit {
		b = append(b, `,"systemd_user":true`...)
	}
	return append(b, '}')
}

// text appends a string; encoding/json escapes what needs it.
func text(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string has no error
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

func array[T any](b []byte, list []T, item func([]byte, T) []byte) []byte {
	if list == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = item(b, v)
	}
	return append(b, ']')
}

func decode(b []byte) (*State, error) {
	s := &State{}
	r := jsonread.New(string(b))
	r.Object(func(key string) { s.field(r, key) })
	if r.Done() {
		return s, nil
	}
	s = &State{}
	return s, json.Unmarshal(b, s)
}

func (s *State) field(r *jsonread.Reader, key string) {
	switch key {
	case "ociVersion":
		s.Version = r.String()
	case "id":
		s.ID = r.String()
	case "bundle":
		s.Bundle = r.String()
	case "rootfs":
		s.Rootfs = r.String()
	case "pid":
		s.Pid = int(r.Int(64))
	case "start_time":
		s.StartTime = r.Uint(64)
	case "created":
		t, err := time.Parse(time.RFC3339Nano, r.String())
		if err != nil {
			r.Fail()
		}
		s.Created = t
	case "cgroup_path":
		s.CgroupPath = r.String()
	case "cgroups":
		s.Cgroups = make([]plan.Dir, 0, 16)
		r.Array(func() {
			var d plan.Dir
			r.Object(func(key string) { dirField(&d, r, key) })
			s.Cgroups = append(s.Cgroups, d)
		})
	case "annotations":
		s.Annotations = r.Map()
	case "no_new_keyring":
		s.NoNewKeyring = r.Bool()
	case "keyring":
		s.Keyring = r.String()
	case "no_hooks":
		s.NoHooks = r.Bool()
	case "shared_pids":
		s.SharedPids = r.Bool()
	case "notify":
		s.Notify = r.String()
	case "resctrl":
		s.Resctrl = r.Strings()
	case "removes":
		s.Removes = r.Strings()
	case "systemd_unit":
		s.Unit = r.String()
	case "systemd_user":
		s.UserUnit = r.Bool()
	default:
		r.Fail()
	}
}

func dirField(d *plan.Dir, r *jsonread.Reader, key string) {
	switch key {
	case "Controllers":
		if !r.Null() {
			d.Controllers = r.Strings()
		}
	case "V2":
		d.V2 = r.Bool()
	case "Mount":
		d.Mount = r.String()
	case "Path":
		d.Path = r.String()
	default:
		r.Fail()
	}
}

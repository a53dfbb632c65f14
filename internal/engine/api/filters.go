package api

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Labelled tells whether an object's labels are as the filters "label" and "label!" (KEY or KEY=VALUE) ask.
func (f Filters) Labelled(labels map[string]string) bool {
	has := func(want string) bool {
		k, v, given := strings.Cut(want, "=")
		got, ok := labels[k]
		return ok && (!given || got == v)
	}
	return !slices.ContainsFunc(f["label"], func(w string) bool { return !has(w) }) && !slices.ContainsFunc(f["label!"], has)
}

// Until is the moment of the filter "until", zero without one.
func (f Filters) Until(now time.Time) (t time.Time, err error) {
	for _, v := range f["until"] {
		if t, err = ParseTime(v, now); err != nil {
			return t, errdef.New(errdef.InvalidArgument, "invalid filter 'until=%s': %w", v, err)
		}
	}
	return t, nil
}

// Bool is a filter of true or false, def without one.
func (f Filters) Bool(key string, def bool) (bool, error) {
	for _, v := range f[key] {
		switch v {
		case "true", "1":
			def = true
		case "false", "0":
			def = false
		default:
			return def, errdef.New(errdef.InvalidArgument, "invalid filter '%s=%s': give true or false", key, v)
		}
	}
	return def, nil
}

// ParseTime reads Docker's ways to give a moment: a duration back from now, seconds since 1970, or a date.
func ParseTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	whole, frac, _ := strings.Cut(s, ".")
	if sec, err := strconv.ParseInt(whole, 10, 64); err == nil {
		nsec, err := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
		if err == nil {
			return time.Unix(sec, nsec), nil
		}
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errdef.New(errdef.InvalidArgument, "invalid time %q: give a duration, seconds since 1970 or a date", s)
}

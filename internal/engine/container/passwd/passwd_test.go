package passwd

import (
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

const people = "root:x:0:0:root:/root:/bin/sh\n# comment\nbob:x:1000:1001::/home/bob:/bin/sh\n1234:x:5:5::/evil:/bin/sh\nbad:x:notanumber:0::/:/\n"
const groups = "root:x:0:\nwheel:x:10:root,bob\nstaff:x:50:bob\nbob:x:1001:\n77:x:8:\n"

func TestResolve(t *testing.T) {
	for _, tc := range []struct {
		user  string
		extra []string
		want  User
		bad   string
	}{
		{user: "", want: User{0, 0, []uint32{10}, "/root"}},
		{user: "root", want: User{0, 0, []uint32{10}, "/root"}},
		{user: "bob", want: User{1000, 1001, []uint32{10, 50}, "/home/bob"}},
		{user: "1000", want: User{1000, 1001, []uint32{10, 50}, "/home/bob"}},
		{user: "bob:wheel", want: User{1000, 10, nil, "/home/bob"}},
		{user: "1234", want: User{1234, 0, nil, "/"}}, // the entry named 1234 has UID 5
		{user: "0:77", want: User{0, 77, nil, "/root"}},
		{user: ":staff", want: User{0, 50, nil, "/root"}},
		{user: "bob:", want: User{1000, 1001, []uint32{10, 50}, "/home/bob"}},
		{user: "65534:65534", extra: []string{"wheel", "99"}, want: User{65534, 65534, []uint32{10, 99}, "/"}},
		{user: "4294967295", bad: "between 0 and"},
		{user: "4294967296", bad: "between 0 and"},
		{user: "0:99999999999", bad: "between 0 and"},
		{user: "nobody", bad: "unable to find user nobody"},
		{user: "bad", bad: "unable to find user bad"},
		{user: "bob:nogroup", bad: "unable to find group nogroup"},
		{user: "bob", extra: []string{"none"}, bad: "unable to find group none"},
		{user: "-1", bad: "unable to find user"},
	} {
		got, err := Resolve(tc.user, tc.extra, strings.NewReader(people), strings.NewReader(groups))
		if tc.bad != "" {
			if err == nil || !strings.Contains(err.Error(), tc.bad) || !errdef.Is(err, errdef.InvalidArgument) {
				t.Errorf("%q: got %+v, %v; want InvalidArgument with %q", tc.user, got, err, tc.bad)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%q: got %+v, %v; want %+v", tc.user, got, err, tc.want)
		}
	}
}

func TestResolveBounds(t *testing.T) {
	endless := io.LimitReader(neverEnding('a'), 1<<30)
	if _, err := Resolve("root", nil, endless, nil); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Fatalf("endless passwd: %v", err)
	}
	if u, err := Resolve("", nil, nil, nil); err != nil || u.UID != 0 || u.Home != "/root" {
		t.Fatalf("absent files: %+v %v", u, err)
	}
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	copy(p, bytes.Repeat([]byte{byte(b)}, len(p)))
	return len(p), nil
}

func FuzzResolve(f *testing.F) {
	f.Add("bob:wheel", people, groups)
	f.Add("0", ":::::", "::::")
	f.Fuzz(func(t *testing.T, user, p, g string) {
		u, err := Resolve(user, nil, strings.NewReader(p), strings.NewReader(g))
		name, _, _ := strings.Cut(user, ":")
		if n, numeric, perr := parse(name); err == nil && name != "" && numeric && perr == nil && u.UID != n {
			t.Fatalf("user %q became %d", user, u.UID)
		}
	})
}

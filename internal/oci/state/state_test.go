package state

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/jsonread"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
)

func states() []State {
	at := time.Date(2026, 11, 26, 13, 14, 15, 123456789, time.UTC)
	return []State{
		{},
		{Created: at.Truncate(time.Second), Cgroups: []plan.Dir{}, Annotations: map[string]string{}},
		{
			Version: "1.3.0", ID: "a_b.c", Bundle: `/b "<&>\é` + "\x01\u2028", Rootfs: "/r", Pid: 1 << 22, StartTime: 1<<64 - 1, Created: at, CgroupPath: "/x",
			Cgroups:     []plan.Dir{{Controllers: []string{"cpu", "cpuacct"}, Mount: "/m", Path: "/m/x"}, {V2: true, Mount: "/u", Path: "/u/x"}},
			Annotations: map[string]string{"b": "2", "a": "1\n"}, NoNewKeyring: true, Keyring: "k", NoHooks: true, SharedPids: true, Notify: "/n", Resctrl: []string{"/r"}, Removes: []string{"/r", "/s"}, Unit: "u.scope", UserUnit: true,
		},
	}
}

// TestEncode has encoding/json say what encode must give and what decode must make of it.
func TestEncode(t *testing.T) {
	for _, s := range states() {
		want, err := json.Marshal(&s)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.encode(); string(got) != string(want) {
			t.Errorf("encode:\n%s\nencoding/json:\n%s", got, want)
		}
		var reread State
		if err := json.Unmarshal(want, &reread); err != nil {
			t.Fatal(err)
		}
		if got, err := decode(want); err != nil || !reflect.DeepEqual(*got, reread) {
			t.Errorf("decode: %v\n%+v\nencoding/json:\n%+v", err, got, reread)
		}
	}
}

// TestEncodeKnowsEveryField fails when a field is added that encode and decode do not know.
func TestEncodeKnowsEveryField(t *testing.T) {
	full := states()[2]
	for _, v := range []reflect.Value{reflect.ValueOf(full), reflect.ValueOf(full.Cgroups[0])} {
		for i := range v.NumField() {
			if v.Field(i).IsZero() && v.Type().Field(i).Name != "V2" {
				t.Errorf("the full state has no %s: give it one", v.Type().Field(i).Name)
			}
		}
	}
	b, s := full.encode(), State{}
	r := jsonread.New(string(b))
	if r.Object(func(key string) { s.field(r, key) }); !r.Done() {
		t.Error("a full state is left to encoding/json")
	}
}

// A state that is not this container's is taken for none: to delete it would leave processes behind that nobody knows.
func TestLoadDamaged(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{", "null", "{}", `{"pid":1}`, `{"id":"other"}`, `{"id":"c"`} {
		if err := os.WriteFile(filepath.Join(root, "c", File), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Load(root, "c"); errdef.KindOf(err) != errdef.DataLoss || !strings.Contains(err.Error(), filepath.Join(root, "c", File)+" is damaged") {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	for _, text := range []string{``, `{`, `{"pid":"1"}`, `{"created":"yesterday"}`, `[]`, `{"cgroups":{}}`} {
		if s, err := decode([]byte(text)); err == nil {
			t.Errorf("%s: accepted as %+v", text, s)
		}
	}
}

package bundle

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/jsonread"
)

// full returns a value of t in which every field is set, so that a field that decode does not know, or reads wrong, is found out. Deeper
// than anything of a config it ends.
func full(t reflect.Type, depth int) reflect.Value {
	v := reflect.New(t).Elem()
	if depth > 12 {
		return v
	}
	switch t.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		v.Elem().Set(full(t.Elem(), depth+1))
	case reflect.Struct:
		for i := range t.NumField() {
			v.Field(i).Set(full(t.Field(i).Type, depth+1))
		}
	case reflect.Slice:
		v = reflect.Append(v, full(t.Elem(), depth+1), full(t.Elem(), depth+1))
	case reflect.Map:
		v.Set(reflect.MakeMap(t))
		v.SetMapIndex(full(t.Key(), depth+1), full(t.Elem(), depth+1))
	case reflect.String:
		v.SetString("text " + t.Name() + ` <"\é☃`)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(math.MinInt64)
	case reflect.Int32:
		v.SetInt(math.MinInt32)
	case reflect.Uint, reflect.Uint64:
		v.SetUint(math.MaxUint64)
	case reflect.Uint32:
		v.SetUint(math.MaxUint32)
	case reflect.Interface: // of another platform
		return v
	case reflect.Uint16:
		v.SetUint(math.MaxUint16)
	default:
		panic("no value for " + t.String())
	}
	return v
}

// TestDecodeKnowsEveryField gives decode a config in which everything is set: it is read by hand, with encoding/json's result.
func TestDecodeKnowsEveryField(t *testing.T) {
	s := full(reflect.TypeFor[Spec](), 0).Interface().(Spec)
	s.Solaris, s.Windows, s.VM, s.ZOS, s.FreeBSD, s.Process.CommandLine = nil, nil, nil, nil, nil, ""
	r := full(reflect.TypeFor[Rootfs](), 0).Interface().(Rootfs)
	text, err := json.Marshal(&s)
	if err != nil {
		t.Fatal(err)
	}
	fast := reader{jsonread.New(string(text))}
	if fast.spec(&Spec{}); !fast.Done() {
		t.Error("a full config is left to encoding/json: is there a new field?")
	}
	if got, err := decode(text); err != nil || !reflect.DeepEqual(got, &s) {
		t.Errorf("decode: %v, %+v", err, got)
	}
	if text, err = json.Marshal(&r); err != nil {
		t.Fatal(err)
	}
	fast = reader{jsonread.New(string(text))}
	if fast.rootfs(&Rootfs{}); !fast.Done() {
		t.Error("a full rootfs.json is left to encoding/json: is there a new field?")
	}
	if got, err := decodeRootfs(text); err != nil || !reflect.DeepEqual(got, &r) {
		t.Errorf("decodeRootfs: %v, %+v", err, got)
	}
}

// oddities are documents on which a reader of its own may go astray. Each has encoding/json's meaning or its refusal.
func oddities() []string {
	return []string{
		``, `null`, `{}`, ` { } `, `{"ociVersion":"1.0.2"}x`, `{"ociVersion":1}`, `{"ociVersion":"a",}`, `{"ociVersion" "a"}`, `{"linux":null}`,
		`{"OCIVERSION":"1"}`, `{"ociVersion":"1","ociVersion":"2"}`, `{"mounts":[],"mounts":[{"destination":"/a"}]}`, `{"mounts":[{},]}`,
		`{"process":{"user":{"uid":-1}}}`, `{"process":{"user":{"uid":4294967296}}}`, `{"process":{"user":{"uid":1.0}}}`, `{"process":{"user":{"uid":1e3}}}`,
		`{"process":{"user":{"uid":01}}}`, `{"process":{"user":{"uid":-0}}}`, `{"process":{"oomScoreAdj":-0}}`, `{"process":{"terminal":tru}}`,
		`{"process":{"terminal":truely}}`, `{"hostname":"a\u0000b\ud83d\ude00\ud800"}`, "{\"hostname\":\"a\xffb\"}", "{\"hostname\":\"a\x01b\"}", `{"hostname":"a\qb"}`,
		`{"hostname":"\"}`, `{"annotations":{"a":"1","a":"2"}}`, `{"annotations":{"a":null}}`, `{"linux":{"resources":{"pids":{}, "blockIO":{ }}}}`,
		`{"linux":{"resources":{"pids":{"limit":5,"x":[[[{"y":1}]]]}}}}`, `{"hooks":{"poststop":[{"path":"/a"}]}}`, `{"hooks":nul}`, `{"hooks":}`, `{"hooks":{]}`,
		`{"hooks":{} "linux":{}}`, `{"windows":{"layerFolders":["a"]}}`, `{"linux":{"sysctl":{}}}`, `{"process":{"args":["a" "b"]}}`, `{"process":{"args":[]}}`,
		"\ufeff{}", `{"\u006fciVersion":"1"}`, `{"linux":{"intelRdt":{"closID":"a"},"seccomp":{"syscalls":[{"names":null}]}}}`,
	}
}

// same compares decode with encoding/json.
func same(t *testing.T, text []byte) {
	t.Helper()
	got, gotErr := decode(text)
	var want linuxSpec
	wantErr := json.Unmarshal(text, &want)
	if (gotErr == nil) != (wantErr == nil) {
		t.Fatalf("%q: error %v, encoding/json has %v", text, gotErr, wantErr)
	}
	if gotErr != nil {
		return
	}
	is := linuxSpec{got.Version, got.Process, got.Root, got.Hostname, got.Domainname, got.Mounts, got.Hooks, got.Annotations, got.Linux}
	if !reflect.DeepEqual(is, want) {
		t.Fatalf("%q:\n%+v, encoding/json has\n%+v", text, is, want)
	}
}

func TestDecodeOddities(t *testing.T) {
	for _, text := range oddities() {
		same(t, []byte(text))
	}
}

func FuzzDecode(f *testing.F) {
	for _, text := range oddities() {
		f.Add([]byte(text))
	}
	s := full(reflect.TypeFor[Spec](), 0).Interface().(Spec)
	s.Solaris, s.Windows, s.VM, s.ZOS, s.FreeBSD = nil, nil, nil, nil, nil
	text, _ := json.Marshal(&s)
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) { same(t, text) })
}

func BenchmarkDecode(b *testing.B) {
	names := make([]string, 400)
	for i := range names {
		names[i] = "syscall_name"
	}
	text, _ := json.Marshal(&Spec{Version: "1.0.2", Process: &specs.Process{Args: []string{"a"}}, Linux: &specs.Linux{Seccomp: &specs.LinuxSeccomp{
		Syscalls: []specs.LinuxSyscall{{Names: names}}}}})
	b.Run("here", func(b *testing.B) {
		for b.Loop() {
			decode(text)
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		for b.Loop() {
			json.Unmarshal(text, &linuxSpec{})
		}
	})
}

package seccomp

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

func TestParse(t *testing.T) {
	h := Host{Arch: "amd64", Caps: []string{"CAP_CHOWN", "CAP_SYS_ADMIN"}, Major: 5, Minor: 10}
	for _, tt := range []struct{ name, profile, want string }{
		{"nothing", `{}`, `null`},
		{"the spec's own", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"flags":["SECCOMP_FILTER_FLAG_LOG"],"listenerPath":"/a","listenerMetadata":"m","syscalls":[{"names":["a"],"action":"SCMP_ACT_NOTIFY","args":[{"index":1,"value":2,"valueTwo":3,"op":"SCMP_CMP_EQ"}]}]}`,
			`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"flags":["SECCOMP_FILTER_FLAG_LOG"],"listenerPath":"/a","listenerMetadata":"m","syscalls":[{"names":["a"],"action":"SCMP_ACT_NOTIFY","args":[{"index":1,"value":2,"valueTwo":3,"op":"SCMP_CMP_EQ"}]}]}`},
		{"architectures", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"archMap":[{"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]},{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]}],"syscalls":null}`,
			`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"]}`},
		{"conditions", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
{"name":"a","action":"SCMP_ACT_ALLOW","comment":"old form"},
{"names":["b"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_CHOWN","CAP_SYS_ADMIN"],"arches":["arm64","amd64"],"minKernel":"5.10"}},
{"names":["c"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_CHOWN","CAP_BPF"]}},
{"names":["d"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["arm64"]}},
{"names":["e"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"5.11"}},
{"names":["f"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_BPF","CAP_CHOWN"]}},
{"names":["g"],"action":"SCMP_ACT_ALLOW","excludes":{"arches":["amd64"]}},
{"names":["h"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"4.8"}},
{"names":["i"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"6.0","caps":["CAP_BPF"],"arches":["s390x"]},"includes":{"minKernel":"4.20"}}]}`,
			`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW"},{"names":["b"],"action":"SCMP_ACT_ALLOW"},{"names":["i"],"action":"SCMP_ACT_ALLOW"}]}`},
	} {
		p, err := Parse([]byte(tt.profile), h)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got, _ := json.Marshal(p); string(got) != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.name, got, tt.want)
		}
	}
	for want, profile := range map[string]string{
		"seccomp profile: unexpected end of JSON input":           `{`,
		"architectures and archMap exclude each other":            `{"defaultAction":"x","architectures":["a"],"archMap":[{"architecture":"b"}]}`,
		"syscalls[0]: name and names exclude each other":          `{"syscalls":[{"name":"a","names":["b"]}]}`,
		`syscalls[0].includes: minKernel "5" is not of the form`:  `{"syscalls":[{"name":"a","includes":{"minKernel":"5"}}]}`,
		`syscalls[1].excludes: minKernel "x." is not of the form`: `{"syscalls":[{"name":"a"},{"name":"a","excludes":{"minKernel":"x."}}]}`,
	} {
		if _, err := Parse([]byte(profile), h); err == nil || errdef.KindOf(err) != errdef.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

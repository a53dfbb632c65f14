package seccomp

import (
	"crypto/sha256"
	"encoding/json"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// BenchmarkProfile compares what a cache of compiled filters would save with what it would cost: finding the key of a profile.
// CPU time, so that a busy machine does not matter.
func BenchmarkProfile(b *testing.B) {
	p := Default([]string{"CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_NET_RAW"})
	text, err := json.Marshal(p)
	if err != nil {
		b.Fatal(err)
	}
	for _, bb := range []struct {
		name string
		do   func()
	}{
		{"compile", func() { Compile(p, "amd64") }},
		{"hash of its JSON", func() { sha256.Sum256(text) }},
		{"JSON and hash", func() { text, _ := json.Marshal(p); sha256.Sum256(text) }},
		{"read from JSON", func() { json.Unmarshal(text, &specs.LinuxSeccomp{}) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var before, after syscall.Rusage
			syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			for b.Loop() {
				bb.do()
			}
			syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			b.ReportMetric(float64(after.Utime.Nano()-before.Utime.Nano())/float64(b.N), "cpu-ns/op")
		})
	}
	b.Logf("%d bytes of JSON", len(text))
}

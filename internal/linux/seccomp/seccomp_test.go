package seccomp

import (
	"testing"
)

func TestDefaultAnswers(t *testing.T) {
	f, err := Compile(Default(nil), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(f.Insns))
	for _, tt := range []struct {
		name string
		args [6]uint64
		want uint32
	}{
		{"getpid", [6]uint64{}, RetAllow},
		{"mount", [6]uint64{}, RetErrno | eperm},
		{"clone3", [6]uint64{}, RetErrno | enosys},
		{"listns", [6]uint64{}, RetErrno | enosys},
		{"io_uring_setup", [6]uint64{}, RetErrno | eperm},
		{"socket", [6]uint64{2}, RetAllow},
		{"socket", [6]uint64{38}, RetErrno | eperm},
		{"socket", [6]uint64{1<<32 | 38}, RetErrno | eperm}, // the kernel sees 38
		{"socket", [6]uint64{39}, RetAllow},
		{"socket", [6]uint64{40}, RetErrno | eperm},
		{"clone", [6]uint64{0x10000000}, RetErrno | eperm},
		{"clone", [6]uint64{17}, RetAllow},
		{"personality", [6]uint64{0xffffffff}, RetAllow},
		{"personality", [6]uint64{0x0040000}, RetErrno | eperm},
	} {
		nr, ok := Number("amd64", tt.name)
		if !ok {
			t.Fatalf("no number for %s", tt.name)
		}
		if got := f.Simulate(nr, AuditAMD64, tt.args); got != tt.want {
			t.Errorf("%s%v = %#x, want %#x", tt.name, tt.args, got, tt.want)
		}
	}
}

func BenchmarkCompileDefault(b *testing.B) {
	caps := []string{"CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_NET_RAW"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(Default(caps), "amd64"); err != nil {
			b.Fatal(err)
		}
	}
}

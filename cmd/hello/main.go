// Command hello is a web server that tells what it sees of the container around it: the embedded image "hello" runs it.
//
// GET / answers as text, GET /json as JSON. It listens on port 80, or on the address in its first argument.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// report is what a container looks like from within.
type report struct {
	Hostname string            `json:"hostname"`
	PID      int               `json:"pid"`
	UID      int               `json:"uid"`
	GID      int               `json:"gid"`
	Args     []string          `json:"args"`
	Cgroup   map[string]string `json:"cgroup"`
	Mounts   []string          `json:"mounts"`
}

func main() {
	addr := ":80"
	if len(os.Args) > 1 {
		addr = os.Args[1]
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, look())
	})
	mux.HandleFunc("GET /json", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(look())
	})
	srv := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	go func() {
		<-ctx.Done()
		srv.Shutdown(context.WithoutCancel(ctx))
	}()
	fmt.Println("hello: listening on", addr)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
	fmt.Println("hello: goodbye")
}

func look() report {
	name, _ := os.Hostname()
	r := report{Hostname: name, PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(), Args: os.Args, Cgroup: limits()}
	for _, l := range lines("/proc/self/mountinfo") {
		if f := strings.Fields(l); len(f) > 9 {
			if i := slices.Index(f, "-"); i > 5 && i+1 < len(f) {
				r.Mounts = append(r.Mounts, fmt.Sprintf("%s %s %s", f[4], f[i+1], f[5]))
			}
		}
	}
	return r
}

// limits reads the files that hold a container back, by the names of either cgroup version.
func limits() map[string]string {
	out := map[string]string{}
	for _, f := range []string{
		"memory.max", "cpu.max", "pids.max", "memory/memory.limit_in_bytes", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "pids/pids.max",
		"cpu,cpuacct/cpu.cfs_quota_us", "cpu,cpuacct/cpu.cfs_period_us",
	} {
		if l := lines(path.Join("/sys/fs/cgroup", f)); len(l) > 0 {
			out[path.Base(f)] = l[0]
		}
	}
	return out
}

func lines(name string) []string {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimRight(string(b), "\n"), "\n")
}

func (r report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Hello from dhow!\n\nhostname  %s\npid       %d\nuid       %d\ngid       %d\ncommand   %s\n", r.Hostname, r.PID, r.UID, r.GID, strings.Join(r.Args, " "))
	b.WriteString("\ncgroup limits\n")
	for _, k := range sortedKeys(r.Cgroup) {
		fmt.Fprintf(&b, "  %-24s %s\n", k, r.Cgroup[k])
	}
	b.WriteString("\nmounts\n")
	for _, m := range r.Mounts {
		fmt.Fprintf(&b, "  %s\n", m)
	}
	return b.String()
}

func sortedKeys(m map[string]string) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

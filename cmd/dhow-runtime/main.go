// Command dhow-runtime is an OCI runtime that drops in for runc.
//
// Go's runtime is spared what pays only in programs that live: reading its own CPU limit from cgroup files, and a goroutine that
// watches it.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"

	"github.com/dhow-containers/dhow/internal/face/runtime"
	"github.com/dhow-containers/dhow/internal/linux/selfexe"
)

// Set by the linker.
var version, commit = "0.1.0-dev", "unknown"

func main() {
	selfexe.Name("dhow-runtime") // it may have been executed anew, by descriptor
	os.Exit(runtime.Main(os.Args[1:], runtime.Version{Number: version, Commit: commit}))
}

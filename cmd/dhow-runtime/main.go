// Command dhow-runtime is an OCI runtime that drops in for runc.
package main

import (
	"os"

	"github.com/dhow-containers/dhow/internal/face/runtime"
)

// Set by the linker.
var version, commit = "0.1.0-dev", "unknown"

func main() { os.Exit(runtime.Main(os.Args[1:], runtime.Version{Number: version, Commit: commit})) }

// Command dhow is the command line: see internal/face/cli.
//
// Go's runtime is spared what pays only in programs that live: reading its own CPU limit from cgroup files, and a goroutine that
// watches it.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"context"
	"os"

	"github.com/dhow-containers/dhow/internal/face/cli"
)

// version is set by the build (-ldflags -X).
var version = "devel"

func main() {
	os.Exit(cli.Main(context.Background(), cli.IO{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, LookupEnv: os.LookupEnv, Version: version,
	}, os.Args[1:]))
}

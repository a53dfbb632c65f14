// Command dhow is the command line: see internal/face/cli.
package main

import (
	"context"
	"os"

	"github.com/dhow-containers/dhow/internal/face/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), cli.IO{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, LookupEnv: os.LookupEnv,
	}, os.Args[1:]))
}

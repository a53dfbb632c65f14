// Command dhow-bench measures dhow against the runtimes and engines that it finds on the machine: see internal/bench.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/dhow-containers/dhow/internal/bench"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == bench.HelperArg {
		exit(bench.Helper(os.Stdin, os.Stdout))
	}
	o := bench.Options{Log: os.Stderr}
	flag.StringVar(&o.Bin, "bin", "bin", "`folder` of dhow's programs")
	flag.StringVar(&o.Cache, "cache", ".cache/peers", "`folder` with peers unpacked below root/")
	only := flag.String("only", "", "`cases`, by the beginning of their names, with commas: runtime-run,engine,...")
	flag.IntVar(&o.N, "n", 0, "`rounds` of every case (default: each case's own)")
	flag.IntVar(&o.ImageMiB, "image", 0, "`MiB` of the large image of the cases images-* (default 1536, 110,000 entries; 64 is quick)")
	asJSON := flag.Bool("json", false, "print JSON, with every value")
	flag.Parse()
	if *only != "" {
		o.Only = strings.Split(*only, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := bench.Run(ctx, o)
	if r != nil && *asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(r); err != nil {
			exit(err)
		}
	} else if r != nil {
		r.Print(os.Stdout)
	}
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "dhow-bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

package runtime

import (
	"flag"
	"fmt"
	"io"
	"os"
)

// traceFlag is --trace (to standard error) or --trace=FILE.
type traceFlag string

func (t *traceFlag) String() string   { return string(*t) }
func (t *traceFlag) IsBoolFlag() bool { return true }
func (t *traceFlag) Set(s string) error {
	switch s {
	case "false":
		*t = ""
	case "true":
		*t = "-"
	default:
		*t = traceFlag(s)
	}
	return nil
}

func (t *traceFlag) define(fs *flag.FlagSet) {
	fs.Var(t, "trace", "print every instruction with the time it took, to standard error or with --trace=FILE into a file")
}

// open returns where the trace goes; nil without one.
func (t *traceFlag) open(stderr io.Writer) (io.Writer, error) {
	switch *t {
	case "":
		return nil, nil
	case "-":
		return stderr, nil
	}
	f, err := os.OpenFile(string(*t), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("--trace: %w", err)
	}
	return f, nil
}

// traces tells which commands have something to trace.
func traces(command string) bool { return command == "create" || command == "run" || command == "exec" }

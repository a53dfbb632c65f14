package runtime

import (
	"flag"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// arity is what a command takes besides its options.
type arity struct {
	least, most int  // most -1: any number
	stops       bool // options end at the first argument: the rest belongs to somebody else's command line
}

// parse reads a command's options, which may stand between its arguments, and returns the arguments.
func parse(fs *flag.FlagSet, argv []string, want arity) ([]string, error) {
	var args []string
	for {
		if err := fs.Parse(argv); err != nil {
			return nil, misuse{err}
		}
		rest := fs.Args()
		ended := len(rest) < len(argv) && argv[len(argv)-len(rest)-1] == "--"
		if len(rest) == 0 || ended || want.stops {
			args = append(args, rest...)
			break
		}
		args, argv = append(args, rest[0]), rest[1:]
	}
	n, how, number := len(args), "", want.least
	switch {
	case want.least == want.most && n != want.least:
		how = "exactly"
	case n < want.least:
		how = "a minimum of"
	case want.most >= 0 && n > want.most:
		how, number = "a maximum of", want.most
	default:
		return args, nil
	}
	return nil, misuse{errdef.New(errdef.InvalidArgument, "%q requires %s %d argument(s), not %d; see dhow-runtime %s --help", fs.Name(), how, number, n, fs.Name())}
}

// misuse is an error of the command line: exit code 1 whatever the command, and nothing before its words.
type misuse struct{ error }

// Unwrap returns the error.
func (m misuse) Unwrap() error { return m.error }

func exactly(n int) arity { return arity{least: n, most: n} }

// thenTheirs is a container and a command line that is not ours, of so many arguments (-1: any number) all in all.
func thenTheirs(most int) arity { return arity{least: 1, most: most, stops: true} }

// list is an option that may be given several times. A comma does not separate.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// both declares an option under its long and its short name.
func both[T any](declare func(p *T, name string, value T, usage string), p *T, long, short string, value T, usage string) {
	declare(p, long, value, usage)
	declare(p, short, value, "short for --"+long)
}

package runtime

import (
	"flag"
	"fmt"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// plan prints a Program without running it: "plan [BUNDLE]" of run, "plan exec ID COMMAND..." (or --exec ID COMMAND...) of exec.
func (a viewer) plan(fs *flag.FlagSet, argv []string) (int, error) {
	if len(argv) > 0 && argv[0] == "exec" {
		return a.planExec(fs, argv[1:])
	}
	var run createFlags
	run.define(fs, true)
	var exec execFlags
	id := fs.String("id", "demo", "container ID to plan for")
	asJSON := fs.Bool("json", false, "print the instructions as JSON")
	inside := fs.String("exec", "", "plan an exec in this container; the arguments are its command (plan exec takes exec's options, too)")
	args, err := parse(fs, argv, arity{most: -1, stops: true})
	if err != nil {
		return 1, err
	}
	if *inside != "" {
		return 0, a.printExec(&exec, append([]string{*inside}, args...), *asJSON)
	}
	switch len(args) {
	case 0:
	case 1:
		run.bundle = args[0]
	default:
		return 1, errdef.New(errdef.InvalidArgument, "plan: %d arguments given, a bundle expected", len(args))
	}
	o, err := a.options(&run, *id)
	if err != nil {
		return 1, err
	}
	p, err := oci.Plan(o)
	if err != nil {
		return 1, err
	}
	return 0, a.printProgram(p, *asJSON)
}

func (a viewer) planExec(fs *flag.FlagSet, argv []string) (int, error) {
	var f execFlags
	f.define(fs)
	asJSON := fs.Bool("json", false, "print the instructions as JSON")
	args, err := parse(fs, argv, thenTheirs(-1))
	if err != nil {
		return 1, err
	}
	return 0, a.printExec(&f, args, *asJSON)
}

func (a viewer) printExec(f *execFlags, args []string, asJSON bool) error {
	c, o, err := f.options(a.app, args)
	if err != nil {
		return err
	}
	p, err := oci.PlanExec(c, o)
	if err != nil {
		return err
	}
	return a.printProgram(p, asJSON)
}

func (a viewer) printProgram(p *prog.Program, asJSON bool) error {
	if asJSON {
		lines, err := prog.ParseListing(strings.NewReader(p.String()))
		if err != nil {
			return err
		}
		return a.printJSON(lines)
	}
	if _, err := p.WriteTo(a.stdout); err != nil {
		return fmt.Errorf("write plan: %w", err)
	}
	return nil
}

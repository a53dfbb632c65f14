package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// frequent are the commands that scripts call in loops. When it is clear from the command line that one of them is meant, only that
// one is built: the others' several hundred flags would double the time that a short command takes.
func frequent() map[string]func(*app) *cobra.Command {
	return map[string]func(*app) *cobra.Command{"run": cmdRun, "exec": cmdExec, "ps": cmdPs, "logs": cmdLogs, "version": cmdVersion,
		"inspect": cmdInspect, "images": cmdImages}
}

// called returns the word that must be the command: the first one, where no option of dhow itself precedes it.
func called(args []string) string {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return ""
	}
	return args[0]
}

// newRoot builds the tree of commands, or of it what a call of the command name needs. Flags and words only: nothing here touches
// the system.
func newRoot(a *app, name string) *cobra.Command {
	root := &cobra.Command{
		Use:              "dhow [OPTIONS] COMMAND [ARG...]",
		Short:            "Run containers",
		Long:             "dhow runs containers: a client of the dhow engine, which it starts when none answers.",
		Example:          "  dhow run --rm -p 8080:80 hello\n  dhow ps -a\n  dhow explain CONTAINER",
		SilenceErrors:    true,
		SilenceUsage:     true,
		TraverseChildren: true,
		Args:             cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if v, _ := c.Flags().GetBool("version"); v {
				a.out("dhow version " + a.Version)
				return nil
			}
			if len(args) == 0 {
				return c.Help()
			}
			return exit(exitError, fmt.Errorf("unknown command: dhow %s\n\nRun 'dhow --help' for more information", args[0]))
		},
	}
	f := root.Flags()
	f.StringVarP(&a.host, "host", "H", "", "Engine to talk to (unix:///path, tcp://host:port)")
	f.StringVar(&a.configDir, "config", "", "Folder of the client's config.json (default ~/.docker)")
	f.StringVarP(&a.context, "context", "c", "", "Context to use (only default yet)")
	f.BoolVarP(&a.debug, "debug", "D", false, "Show more of what goes wrong")
	f.BoolP("version", "v", false, "Print the client's version and quit")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage(c, exitEngine, err) })
	root.AddGroup(&cobra.Group{ID: "common", Title: "Common commands:"},
		&cobra.Group{ID: "manage", Title: "Management commands:"}, &cobra.Group{ID: "more", Title: "More commands:"})
	if make, ok := frequent()[name]; ok {
		addTo(root, "common", make(a))
		finish(root)
		return root
	}
	addTo(root, "common", cmdRun(a), cmdExec(a), cmdPs(a), cmdLogs(a), cmdPull(a), cmdPush(a), cmdImages(a), cmdExplain(a),
		cmdLogin(a), cmdLogout(a), cmdVersion(a), cmdInfo(a))
	addTo(root, "more", containerVerbs(a)...)
	addTo(root, "more", imageVerbs(a)...)
	addTo(root, "more", cmdInspect(a), cmdEvents(a), cmdStats(a))
	addTo(root, "manage", groupContainer(a), groupImage(a), groupManifest(a), groupNetwork(a), groupVolume(a), groupSystem(a))
	root.SetHelpCommandGroupID("more")
	root.SetCompletionCommandGroupID("more")
	root.SetUsageTemplate(onceUsed(root.UsageTemplate()))
	finish(root)
	return root
}

// onceUsed takes out of cobra's page the second usage line, which it adds for commands that hold others.
func onceUsed(page string) string {
	return strings.NewReplacer("{{if .HasAvailableSubCommands}}\n  {{.CommandPath}} [command]{{end}}", "", "[command] --help", "COMMAND --help").Replace(page)
}

func addTo(parent *cobra.Command, group string, cmds ...*cobra.Command) {
	for _, c := range cmds {
		if group != "" {
			c.GroupID = group
		}
		parent.AddCommand(c)
	}
}

// group is a command that only holds others.
func group(name, short string, cmds ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{
		Use:   name + " COMMAND",
		Short: short,
		Args:  cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return usage(c, exitError, fmt.Errorf("unknown command: %s %s", c.CommandPath(), args[0]))
		},
	}
	addTo(g, "", cmds...)
	return g
}

// finish gives every command what all have in common.
func finish(c *cobra.Command) {
	c.DisableFlagsInUseLine = true
	if c.Flags().ShorthandLookup("h") != nil {
		c.Flags().Bool("help", false, "Print this page")
	} else {
		c.Flags().BoolP("help", "h", false, "Print this page")
	}
	c.Flags().SortFlags = true
	if len(c.Commands()) == 0 && !strings.Contains(c.Use, "[OPTIONS]") {
		name, rest, _ := strings.Cut(c.Use, " ")
		c.Use = strings.TrimSpace(name + " [OPTIONS] " + rest)
	}
	for _, sub := range c.Commands() {
		finish(sub)
	}
}

// words is a command with a usage line, a one-line summary and an example.
func words(use, short, example string, args cobra.PositionalArgs, run func(c *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Example: "  " + strings.ReplaceAll(example, "\n", "\n  "), Args: args, RunE: run}
}

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/create"
	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

// containerVerbs are the commands on containers that stand both at the top and under `container`.
func containerVerbs(a *app) []*cobra.Command {
	return []*cobra.Command{
		cmdCreate(a), cmdStart(a), cmdStop(a, "stop"), cmdStop(a, "restart"), cmdKill(a), cmdRm(a), cmdWait(a), cmdRename(a),
		simple(a, "pause", "Freeze all processes of containers", "dhow pause web"),
		simple(a, "unpause", "Let the processes of paused containers run again", "dhow unpause web"),
		cmdAttach(a), cmdTop(a), cmdPort(a), cmdUpdate(a), cmdDiff(a), cmdCp(a), cmdCommit(a), cmdExport(a),
	}
}

func groupContainer(a *app) *cobra.Command {
	ls := psCommand(a, "ls")
	ls.Aliases = []string{"list", "ps"}
	g := group("container", "Manage containers", append(containerVerbs(a), cmdRun(a), cmdExec(a), cmdLogs(a), ls, cmdStats(a),
		inspectCommand(a, "container"), cmdPrune(a, "container"))...)
	return g
}

func containerPath(ref, verb string) string { return "/containers/" + url.PathEscape(ref) + verb }

// simple is a verb without flags.
func simple(a *app, verb, short, example string) *cobra.Command {
	return words(verb+" CONTAINER [CONTAINER...]", short, example, minArgs(1), func(c *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.forEach(args, func(n string) error { return api.Post(c.Context(), containerPath(n, "/"+verb), nil, nil, nil) })
	})
}

func cmdStop(a *app, verb string) *cobra.Command {
	var sig string
	var timeout int
	short := "Stop running containers"
	if verb == "restart" {
		short = "Stop containers and start them again"
	}
	c := words(verb+" [OPTIONS] CONTAINER [CONTAINER...]", short, "dhow "+verb+" -t 3 web", minArgs(1),
		func(c *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{}
			if sig != "" {
				q.Set("signal", sig)
			}
			if c.Flags().Changed("timeout") || c.Flags().Changed("time") {
				q.Set("t", strconv.Itoa(timeout))
			}
			return a.forEach(args, func(n string) error { return api.Post(c.Context(), containerPath(n, "/"+verb), q, nil, nil) })
		})
	c.Flags().StringVarP(&sig, "signal", "s", "", "Signal to send (default the container's, or SIGTERM)")
	c.Flags().IntVarP(&timeout, "timeout", "t", 0, "Seconds to wait before SIGKILL; -1 waits for ever (default the container's, or 10)")
	c.Flags().IntVar(&timeout, "time", 0, "Seconds to wait before SIGKILL")
	c.Flags().MarkHidden("time")
	return c
}

func cmdKill(a *app) *cobra.Command {
	var sig string
	c := words("kill [OPTIONS] CONTAINER [CONTAINER...]", "Send a signal to containers, SIGKILL unless told", "dhow kill -s HUP web", minArgs(1),
		func(c *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{}
			if sig != "" {
				q.Set("signal", sig)
			}
			return a.forEach(args, func(n string) error { return api.Post(c.Context(), containerPath(n, "/kill"), q, nil, nil) })
		})
	c.Flags().StringVarP(&sig, "signal", "s", "", "Signal to send")
	return c
}

func cmdRm(a *app) *cobra.Command {
	var force, volumes, link bool
	c := words("rm [OPTIONS] CONTAINER [CONTAINER...]", "Remove containers", "dhow rm -f web\ndhow rm -v $(dhow ps -aq)", minArgs(1),
		func(c *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{}
			for k, on := range map[string]bool{"force": force, "v": volumes, "link": link} {
				if on {
					q.Set(k, "1")
				}
			}
			return a.forEach(args, func(n string) error {
				n = strings.Trim(n, "/")
				if n == "" {
					return errors.New("the container's name is empty")
				}
				err := api.Delete(c.Context(), containerPath(n, ""), q, nil)
				if force && isMissing(err) {
					return tolerated{err}
				}
				return err
			})
		})
	c.Aliases = []string{"remove"}
	c.Flags().BoolVarP(&force, "force", "f", false, "Kill it first when it runs")
	c.Flags().BoolVarP(&volumes, "volumes", "v", false, "Remove its anonymous volumes as well")
	c.Flags().BoolVarP(&link, "link", "l", false, "Remove a link instead of a container")
	return c
}

func cmdWait(a *app) *cobra.Command {
	return words("wait CONTAINER [CONTAINER...]", "Wait until containers stop, then print their exit codes", "dhow wait job", minArgs(1),
		func(c *cobra.Command, args []string) error {
			if _, err := a.client(); err != nil {
				return err
			}
			failed := false
			for _, n := range args {
				ch, err := a.wait(c.Context(), n, "")
				if err == nil {
					s := <-ch
					if err = s.problem; err == nil {
						a.out(s.code)
						continue
					}
				}
				a.complain(err)
				failed = true
			}
			if failed {
				return exit(exitError, nil)
			}
			return nil
		})
}

func cmdRename(a *app) *cobra.Command {
	return words("rename CONTAINER NEW_NAME", "Give a container another name", "dhow rename web old-web", exactArgs(2),
		func(c *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			return api.Post(c.Context(), containerPath(args[0], "/rename"), url.Values{"name": {args[1]}}, nil, nil)
		})
}

func cmdStart(a *app) *cobra.Command {
	var attach, stdin bool
	var keys string
	c := words("start [OPTIONS] CONTAINER [CONTAINER...]", "Start stopped containers", "dhow start web\ndhow start -ai shell", minArgs(1),
		func(c *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			if !attach && !stdin {
				return a.forEach(args, func(n string) error { return api.Post(c.Context(), containerPath(n, "/start"), nil, nil, nil) })
			}
			if len(args) > 1 {
				return usage(c, exitError, errors.New("--attach and --interactive take one container"))
			}
			return a.join(c.Context(), args[0], join{start: true, stdin: stdin, keys: keys, proxy: true})
		})
	c.Flags().BoolVarP(&attach, "attach", "a", false, "Attach to its output and forward signals")
	c.Flags().BoolVarP(&stdin, "interactive", "i", false, "Attach to its input")
	c.Flags().StringVar(&keys, "detach-keys", "", "Keys that detach from the container")
	return c
}

func cmdTop(a *app) *cobra.Command {
	c := words("top CONTAINER [ps OPTIONS]", "Show the processes of a container", "dhow top web\ndhow top web -o pid,comm", minArgs(1),
		func(c *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{}
			if len(args) > 1 {
				q.Set("ps_args", strings.Join(args[1:], " "))
			}
			var top container.TopResponse
			if err := api.Get(c.Context(), containerPath(args[0], "/top"), q, &top); err != nil {
				return err
			}
			w := tabwriter.NewWriter(a.Stdout, 20, 1, 3, ' ', 0)
			fmt.Fprintln(w, format.SafeText(strings.Join(top.Titles, "\t")))
			for _, p := range top.Processes {
				for i := range p {
					p[i] = format.Safe(p[i])
				}
				fmt.Fprintln(w, strings.Join(p, "\t"))
			}
			return w.Flush()
		})
	c.Flags().SetInterspersed(false)
	return c
}

func cmdPort(a *app) *cobra.Command {
	return words("port CONTAINER [PRIVATE_PORT[/PROTO]]", "Show the published ports of a container", "dhow port web 80/tcp", countArgs(1, 2),
		func(c *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			var ins container.InspectResponse
			if err := api.Get(c.Context(), containerPath(args[0], "/json"), nil, &ins); err != nil {
				return err
			}
			if ins.NetworkSettings == nil {
				return nil
			}
			var want string
			if len(args) == 2 {
				if want = args[1]; !strings.Contains(want, "/") {
					want += "/tcp"
				}
			}
			return printPorts(a, ins.NetworkSettings.Ports, args, want)
		})
}

func cmdUpdate(a *app) *cobra.Command {
	var o create.Update
	c := words("update [OPTIONS] CONTAINER [CONTAINER...]", "Change the limits of containers", "dhow update -m 512m --cpus 1.5 web", minArgs(1),
		func(c *cobra.Command, args []string) error {
			u, err := o.Request()
			if err != nil {
				return usage(c, exitError, err)
			}
			api, err := a.client()
			if err != nil {
				return err
			}
			return a.forEach(args, func(n string) error {
				var resp container.UpdateResponse
				if err := api.Post(c.Context(), containerPath(n, "/update"), nil, u, &resp); err != nil {
					return err
				}
				for _, w := range resp.Warnings {
					fmt.Fprintln(a.Stderr, "WARNING: "+format.Safe(w))
				}
				return nil
			})
		})
	o.AddTo(c.Flags())
	return c
}

// printPorts lists the bindings of all ports, or those of the one wanted.
func printPorts(a *app, ports network.PortMap, args []string, want string) error {
	var lines []string
	found := false
	for p, binds := range ports {
		if want != "" && p.String() != want {
			continue
		}
		for _, b := range binds {
			found = true
			addr := ":" + b.HostPort
			if b.HostIP.IsValid() {
				addr = net.JoinHostPort(b.HostIP.String(), b.HostPort)
			}
			if want == "" {
				addr = p.String() + " -> " + addr
			}
			lines = append(lines, format.Safe(addr))
		}
	}
	if want != "" && !found {
		return fmt.Errorf("no public port '%s' published for %s", want, args[0])
	}
	sort.Strings(lines)
	for _, l := range lines {
		a.out(l)
	}
	return nil
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only maps and strings come here
	}
	return string(b)
}

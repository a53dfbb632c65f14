package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sort"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

func groupSystem(a *app) *cobra.Command {
	return group("system", "Manage the engine", cmdCheck(a), cmdLayout(a), cmdInfo(a), cmdEvents(a), cmdDf(a), cmdPrune(a, "system"), cmdDialStdio(a))
}

type clientVersion struct {
	Version, GoVersion, Os, Arch string
}

// versions is what a template of `version` sees.
type versions struct {
	Client clientVersion
	Server *system.VersionResponse
}

func cmdVersion(a *app) *cobra.Command {
	var fm string
	var only bool
	c := words("version", "Show the versions of client and engine", "dhow version\ndhow version --format '{{.Server.Version}}'", maxArgs(0),
		func(c *cobra.Command, _ []string) error {
			v := versions{Client: clientVersion{a.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH}}
			var problem error
			if !only {
				api, err := a.client()
				if err != nil {
					return err
				}
				var s system.VersionResponse
				if problem = api.Get(c.Context(), "/version", nil, &s); problem == nil {
					v.Server = &s
				}
			}
			if fm != "" {
				if err := a.template(fm, v); err != nil {
					return errors.Join(problem, err)
				}
				return problem
			}
			fmt.Fprintf(a.Stdout, "Client:\n Version:     %s\n Go version:  %s\n OS/Arch:     %s/%s\n", v.Client.Version, v.Client.GoVersion, v.Client.Os, v.Client.Arch)
			if s := v.Server; s != nil {
				var b strings.Builder
				fmt.Fprintf(&b, "\nServer: %s\n Version:     %s\n API version: %s (minimum %s)\n Go version:  %s\n Kernel:      %s\n OS/Arch:     %s/%s\n",
					s.Platform.Name, s.Version, s.APIVersion, s.MinAPIVersion, s.GoVersion, s.KernelVersion, s.Os, s.Arch)
				for _, k := range s.Components {
					fmt.Fprintf(&b, " %s: %s\n", k.Name, k.Version)
				}
				fmt.Fprint(a.Stdout, format.SafeText(b.String()))
			}
			return problem
		})
	c.Flags().StringVarP(&fm, "format", "f", "", "Format of the output: json or a Go template")
	c.Flags().BoolVar(&only, "client", false, "Show the client only, without asking an engine")
	return c
}

// template prints v by a template, or as JSON.
func (a *app) template(fm string, v any) error {
	if fm == "json" {
		fm = "{{json .}}"
	}
	t, err := format.Parse(fm)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return fmt.Errorf("--format: %w", err)
	}
	a.out(b.String())
	return nil
}

func cmdInfo(a *app) *cobra.Command {
	var fm string
	c := words("info", "Show what the engine is and has", "dhow info\ndhow info --format '{{.Driver}}'", maxArgs(0), func(c *cobra.Command, _ []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		var raw []byte
		if err := api.Get(c.Context(), "/info", nil, &raw); err != nil {
			return err
		}
		var i system.Info
		if err := json.Unmarshal(raw, &i); err != nil {
			return fmt.Errorf("decode the engine's answer: %w", err)
		}
		if fm != "" {
			return a.template(fm, struct {
				system.Info
				ClientInfo clientVersion
			}{i, clientVersion{a.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH}})
		}
		fmt.Fprint(a.Stdout, format.SafeText(infoPage(&i, a.Version)))
		for _, w := range i.Warnings {
			fmt.Fprintln(a.Stderr, format.Safe(w))
		}
		return nil
	})
	c.Flags().StringVarP(&fm, "format", "f", "", "Format of the output: json or a Go template")
	return c
}

func infoPage(i *system.Info, version string) string {
	var b strings.Builder
	line := func(indent int, k string, v any) {
		if s := fmt.Sprint(v); s != "" {
			fmt.Fprintf(&b, "%s%s: %s\n", strings.Repeat(" ", indent), k, s)
		}
	}
	fmt.Fprintf(&b, "Client:\n Version: %s\n\nServer:\n", version)
	line(1, "Containers", i.Containers)
	line(2, "Running", i.ContainersRunning)
	line(2, "Paused", i.ContainersPaused)
	line(2, "Stopped", i.ContainersStopped)
	line(1, "Images", i.Images)
	line(1, "Server Version", i.ServerVersion)
	line(1, "Storage Driver", i.Driver)
	for _, p := range i.DriverStatus {
		line(2, p[0], p[1])
	}
	line(1, "Logging Driver", i.LoggingDriver)
	line(1, "Cgroup Driver", i.CgroupDriver)
	line(1, "Cgroup Version", i.CgroupVersion)
	b.WriteString(" Plugins:\n")
	line(2, "Volume", strings.Join(i.Plugins.Volume, " "))
	line(2, "Network", strings.Join(i.Plugins.Network, " "))
	line(2, "Log", strings.Join(i.Plugins.Log, " "))
	names := make([]string, 0, len(i.Runtimes))
	for n := range i.Runtimes {
		names = append(names, n)
	}
	sort.Strings(names)
	line(1, "Runtimes", strings.Join(names, " "))
	line(1, "Default Runtime", i.DefaultRuntime)
	line(1, "Security Options", strings.Join(i.SecurityOptions, " "))
	line(1, "Kernel Version", i.KernelVersion)
	line(1, "Operating System", i.OperatingSystem)
	line(1, "OSType", i.OSType)
	line(1, "Architecture", i.Architecture)
	line(1, "CPUs", i.NCPU)
	line(1, "Total Memory", units.BytesSize(float64(i.MemTotal)))
	line(1, "Name", i.Name)
	line(1, "ID", i.ID)
	line(1, "Root Dir", i.DockerRootDir)
	line(1, "Live Restore Enabled", i.LiveRestoreEnabled)
	return b.String()
}

// cmdDialStdio joins standard input and output to the engine's socket: the far end of ssh:// hosts.
func cmdDialStdio(a *app) *cobra.Command {
	c := words("dial-stdio", "Join standard input and output to the engine's socket", "ssh host dhow system dial-stdio", maxArgs(0),
		func(c *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			conn, err := api.Dial(c.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			go func() { // ends with stdin or the process
				io.Copy(conn, a.Stdin)
				if cw, ok := conn.(interface{ CloseWrite() error }); ok {
					cw.CloseWrite()
				}
			}()
			_, err = io.Copy(a.Stdout, conn)
			return err
		})
	c.Hidden = true
	return c
}

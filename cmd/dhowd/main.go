// Command dhowd is the engine: it keeps images, networks, volumes and containers, and answers the Docker API on a socket.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/dhow-containers/dhow/cmd/dhowd/hello"
	"github.com/dhow-containers/dhow/internal/engine"
	"github.com/dhow-containers/dhow/internal/engine/container/rootfs"
	"github.com/dhow-containers/dhow/internal/engine/files"
	"github.com/dhow-containers/dhow/internal/face/docker"
	"github.com/dhow-containers/dhow/internal/linux/jail"
	"github.com/dhow-containers/dhow/internal/store/dump"
	"github.com/dhow-containers/dhow/internal/store/layer/unpack"
)

var version, commit = "devel", "" // set by the build (-ldflags -X)
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	jail.Main(os.Args, files.Layer(), unpack.Trade(), rootfs.Filling())
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "dhowd:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	c := engine.Config{Version: version, Commit: commit, Embedded: hello.Image()}
	hosts, certs, level := list{}, list{}, slog.LevelInfo
	f := flag.NewFlagSet("dhowd", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), "dhowd is the dhow engine. It runs in the foreground, as root.\n\nUsage: dhowd [flags]\n       dhowd inspect FILE...   print meta.db, a layer's tree.bin or an image's index.erofs\n\nFlags:\n")
		f.PrintDefaults()
	}
	f.Var(&hosts, "host", "listen on `unix:///path` (default unix:///run/dhow/dhow.sock; may be given again)")
	f.Var(&hosts, "H", "`unix:///path`: the same, for short")
	f.StringVar(&c.DataRoot, "data-root", "/var/lib/dhow", "`folder` of images, volumes and containers")
	f.StringVar(&c.RunRoot, "run-root", "/run/dhow", "`folder` of what a reboot may forget")
	f.StringVar(&c.RunRoot, "exec-root", "/run/dhow", "the same, as Docker calls it")
	f.StringVar(&c.Shim, "shim", "", "`path` of dhow-shim (default beside this program)")
	f.StringVar(&c.CgroupParent, "cgroup-parent", "", "`path` of the cgroup above all containers (default /dhow/<engine id>)")
	f.StringVar(&c.Bridge, "bridge-name", "", "`name` of the default network's bridge device (default dhow0)")
	f.StringVar(&c.Table, "table", "", "`name` of the nft table (default dhow)")
	f.StringVar(&c.Layers, "layers", "", "`form` of layers: erofs, erofs-loop, btrfs, dir, vfs, or auto for the first that works (default as last time, at first auto)")
	f.Var((*list)(&c.Insecure), "insecure-registry", "`host[:port]` or CIDR of a registry without TLS (may be given again)")
	f.Var((*list)(&c.Mirrors), "registry-mirror", "`URL` of a registry that is asked before Docker Hub (may be given again)")
	f.Var(&certs, "registry-certs", "`folder` with a folder HOST:PORT of *.crt, *.cert and *.key for each registry (default /etc/dhow/certs.d and /etc/docker/certs.d)")
	f.Var(&c.ImageStoreSize, "image-store-size", "`bytes` (20g) that images may take: beyond it unused ones go, nameless and least recently used first (default no bound)")
	f.BoolVar(&c.Lazy, "lazy", false, "pulls return when their image can be used, while layers with tables of contents (zstd:chunked, eStargz) still arrive")
	f.TextVar(&level, "log-level", slog.LevelInfo, "`level`: debug, info, warn or error")
	showVersion := f.Bool("version", false, "print the version and exit")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case *showVersion:
		fmt.Println("dhowd", version, commit)
		return nil
	case f.NArg() > 0:
		return dump.Command(os.Stdout, f.Args())
	case os.Geteuid() != 0:
		return errors.New("must run as root: it makes namespaces, mounts and networks (rootless mode is not implemented)")
	}
	if c.Shim == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find dhow-shim: %w", err)
		}
		c.Shim = filepath.Join(filepath.Dir(self), "dhow-shim")
	}
	if _, err := os.Stat(c.Shim); err != nil {
		return fmt.Errorf("find dhow-shim: %w: give its path with --shim", err)
	}
	c.CertDirs, c.Proxy, c.Log = certs, http.ProxyFromEnvironment, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	return serve(c, hosts)
}

func serve(c engine.Config, hosts []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	syscall.Umask(0o077)
	debug.SetGCPercent(40) // layers' tables are large and hold no pointers: collecting is cheap, garbage beside them is not
	if len(hosts) == 0 {
		hosts = []string{"unix:///run/dhow/dhow.sock"}
	}
	e, err := engine.Open(ctx, c)
	if err != nil {
		return err
	}
	defer e.Close()
	var sockets []net.Listener
	for _, h := range hosts {
		l, err := docker.Listen(h)
		if err != nil {
			return err
		}
		defer l.Close()
		sockets = append(sockets, l)
	}
	c.Log.Info("engine ready", "id", e.ID[:12], "version", version, "hosts", strings.Join(hosts, " "))
	defer c.Log.Info("engine ends; containers go on")
	return docker.Serve(ctx, docker.New(docker.Config{Engine: e.API, Version: version, Commit: commit, Log: c.Log}), c.Log, sockets...)
}

package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// startContainerd starts a containerd whose client, ctr, is spawned beside it: it is ctr that downloads.
func (b images) startContainerd() (*client, error) {
	search := filepath.Join(b.Cache, "root/usr/bin") + ":" + filepath.Join(b.Cache, "root/usr/sbin") + ":" + os.Getenv("PATH")
	engine, ctr := find("containerd", search), find("ctr", search)
	if engine == "" || ctr == "" {
		return nil, errors.New("containerd or ctr is neither installed nor unpacked in " + b.Cache)
	}
	b.report.Programs = append(b.report.Programs, version(engine, "--version"))
	if _, err := os.Stat("/run/containerd"); os.IsNotExist(err) {
		b.onEnd(func() { os.RemoveAll("/run/containerd") }) // the sockets of its shims lie there, whatever one asks
	}
	h, err := b.start("containerd", func(h *host) *exec.Cmd {
		conf := h.dir + "/config.toml"
		text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.zfs\"]\n[grpc]\naddress = %q\n",
			h.dir+"/data", h.dir+"/run", h.socket)
		os.WriteFile(conf, []byte(text), 0o600) // one that is missing ends containerd, which is told
		cmd := exec.Command(engine, "--config", conf, "--log-level", "warn")
		cmd.Env = append(os.Environ(), "PATH="+search)
		return cmd
	})
	if err != nil {
		return nil, err
	}
	s, err := b.helper(surroundings{}, h.netns)
	if err != nil {
		return nil, err
	}
	return &client{name: "containerd", program: ctr, at: h, spawn: s, global: []string{"--address", h.socket}}, nil
}

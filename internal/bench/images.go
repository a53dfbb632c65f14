package bench

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// atOnce is how many layers dhow inflates at a time.
const atOnce = 3

// readAll reads every file of an image inside a container, four times, and prints the seconds before and behind each.
const readAll = "for i in 1 2 3 4; do read a x </proc/uptime; find / -xdev -type f -exec cat {} + >/dev/null; read b x </proc/uptime; echo $a $b; done"

// pulls are what one contender's turn with a large image gives, a figure for each trial.
var pulls = []trial{
	{name: "images-pull", what: "pull, and run true in it for the first time", unit: "s", targets: []Target{{Peer: "docker", Ratio: 0.35}, {Peer: "podman", Ratio: 0.35}, {Peer: "containerd", Ratio: 0.35}, {Peer: "inflating and hashing", Ratio: 1.4}}},
	{name: "images-memory", what: "growth of the engine's memory (RSS, at its highest) meanwhile", unit: "MiB", targets: []Target{{Most: 64}}},
	{name: "images-disk", what: "growth of the folder of images by it", unit: "MiB", targets: []Target{{Peer: "the layers, uncompressed", Ratio: 1.03}}},
	{name: "images-read-cold", what: "reading every file of it in a container, nothing cached", unit: "s", targets: []Target{{Peer: "docker", Ratio: 1 / 0.9}}},
	{name: "images-read-warm", what: "the same again, the quickest of three", unit: "s", targets: []Target{{Peer: "docker", Ratio: 1 / 0.9}}},
	{name: "images-remove", what: "removing it", unit: "s", targets: []Target{{Most: 0.2}}},
}

// images are the cases about a large image.
type images struct {
	*bench
	img *fatImage
}

// measure measures what a large image costs.
func (b images) measure() error {
	if b.ImageMiB <= 0 {
		b.ImageMiB = 1536
	}
	var err error
	if b.img, err = b.make(fat{b.ImageMiB, b.ImageMiB * 72}); err != nil { // 110,592 by default
		b.absent("images: %v", err)
		return nil
	}
	clients, err := b.clients()
	if err != nil {
		return err
	}
	if c, err := b.startContainerd(); err != nil {
		b.absent("containerd: %v", err)
	} else {
		clients = append(clients, c)
	}
	clients = distinct(clients)
	var turns []turn
	for _, c := range clients {
		if err := b.serve(c.at, b.img); err != nil {
			return err
		}
		turns = append(turns, turn{c.name, func() ([]float64, error) { return c.large(b.img) }})
	}
	turns = append(turns, turn{"inflating and hashing", func() ([]float64, error) { v, err := b.img.floor(); return []float64{v}, err }},
		turn{"the layers, uncompressed", func() ([]float64, error) { return []float64{none, none, mib(b.img.uncompressed())}, nil }})
	b.take(pulls, turns, 3, 0)
	b.depth(clients[0])
	return nil
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// verb is how a client's command line says what it is to do with an image.
func (c *client) verb(what, ref, script string) []string {
	if c.name == "containerd" {
		return map[string][]string{"pull": {"images", "pull", "--plain-http", ref}, "remove": {"images", "rm", "--sync", ref},
			"run": {"run", "--rm", "--cgroup", cgroupTop + "/containerd", ref, fmt.Sprint("bench-", time.Now().UnixNano()), "/bin/sh", "-c", script}}[what]
	}
	return map[string][]string{"pull": {"pull", "-q", ref}, "remove": {"rmi", ref}, "run": {"run", "--rm", "--network", "none", ref, "/bin/sh", "-c", script}}[what]
}

// large is a turn of a client: the figures of pulls, in their order.
func (c *client) large(img *fatImage) (v []float64, err error) {
	if c.broken != nil {
		return nil, c.broken
	}
	before, err := usage(c.at.dir + "/data")
	if err != nil {
		return nil, err
	}
	unix.Sync() // what the one before left to write is his
	grown := c.memory()
	pulled, err := c.do(c.verb("pull", img.Ref, "")...)
	if err != nil {
		return nil, err
	}
	ran, err := c.do(c.verb("run", img.Ref, "true")...)
	if err != nil {
		return nil, err
	}
	c.settle()
	v = append(v, (pulled.Took + ran.Took).Seconds(), grown())
	after, err := usage(c.at.dir + "/data")
	if err != nil {
		return nil, err
	}
	v = append(v, mib(after-before))
	cold, warm, err := c.read(img)
	if err != nil {
		return nil, err
	}
	v = append(v, cold, warm)
	removed, err := c.do(c.verb("remove", img.Ref, "")...)
	return append(v, removed.Took.Seconds()), err
}

// read takes the times of readAll as the container saw them: with nothing cached, and the least of those that followed.
func (c *client) read(img *fatImage) (cold, warm float64, err error) {
	unix.Sync()
	dropped := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
	o, err := c.do(c.verb("run", img.Ref, readAll)...)
	c.settle()
	if err != nil {
		return 0, 0, err
	}
	var took []float64
	for _, line := range strings.Split(o.Out, "\n") {
		var from, to float64
		if _, err := fmt.Sscan(line, &from, &to); err != nil {
			return 0, 0, fmt.Errorf("%s: %q: %w", readAll, o.Out, err)
		}
		took = append(took, to-from)
	}
	if cold, warm = took[0], slices.Min(took[1:]); dropped != nil {
		cold = none
	}
	return cold, warm, nil
}

// memory begins to watch the engine; the function returned tells by how much it grew at most, since. An engine that is none, podman's, gives none.
func (c *client) memory() func() float64 {
	if c.at.pid == 0 {
		return func() float64 { return none }
	}
	sum := func(field string) (kib float64) {
		for _, p := range tree(c.at.pid) {
			kib += status(p, field)
		}
		return kib
	}
	for _, p := range tree(c.at.pid) {
		os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p), []byte("5"), 0) // VmHWM begins anew
	}
	before := sum("VmRSS:")
	return func() float64 { return (sum("VmHWM:") - before) / 1024 }
}

// status is a number of /proc/PID/status.
func status(pid int, field string) float64 {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, after, _ := strings.Cut(string(raw), "\n"+field)
	if f := strings.Fields(after); len(f) > 0 {
		n, _ := strconv.ParseFloat(f[0], 64)
		return n
	}
	return 0
}

// usage is what a folder takes on the disk; mounts below it (an engine's containers) do not count, and files that vanish meanwhile neither.
func usage(dir string) (int64, error) {
	unix.Sync() // delayed allocation
	var top unix.Stat_t
	if err := unix.Stat(dir, &top); err != nil {
		return 0, err
	}
	var sum int64
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err != nil || unix.Lstat(path, &st) != nil {
			return nil
		}
		if st.Dev != top.Dev {
			return fs.SkipDir
		}
		if !seen[st.Ino] {
			seen[st.Ino] = true
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum, err
}

// floor inflates and hashes the layers from the page cache, as many at a time as dhow does, with the same library.
func (f *fatImage) floor() (float64, error) {
	began := time.Now()
	var g errgroup.Group
	g.SetLimit(atOnce)
	for n, l := range f.Manifest.Layers {
		g.Go(func() error {
			file, err := os.Open(f.blob(l.Digest))
			if err != nil {
				return err
			}
			defer file.Close()
			z, err := gzip.NewReader(bufio.NewReaderSize(file, 256<<10))
			if err != nil {
				return err
			}
			size, err := io.CopyBuffer(struct{ io.Writer }{sha256.New()}, struct{ io.Reader }{z}, make([]byte, 512<<10))
			if err == nil && size != f.Sizes[n] {
				err = errors.New("the image in the cache is damaged: remove it")
			}
			return err
		})
	}
	err := g.Wait()
	return time.Since(began).Seconds(), err
}

// depth runs a container of many layers and one of a single one in turns.
func (b images) depth(dhow *client) {
	t := trial{name: "images-run", what: "run --rm --network none IMAGE true, by the number of its layers", unit: "ms", n: 30, targets: []Target{{Peer: "dhow, 1 layer", Ratio: 1.05}}}
	if !b.wanted(t.name) || b.ctx.Err() != nil {
		return
	}
	if dhow.broken == nil {
		_, dhow.broken = dhow.do("pull", "-q", b.img.Ref)
	}
	for _, who := range [][2]string{{"dhow, 10 layers", b.img.Ref}, {"dhow, 1 layer", image}} {
		c := each([]*client{dhow}, func(c *client) (float64, error) {
			return c.time("run", "--rm", "--network", "none", who[1], "/bin/true")
		})[0]
		c.name = who[0]
		t.contenders = append(t.contenders, c)
	}
	b.try(t)
}

package lazy

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/layer/tarindex"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Annotations of a layer's descriptor (stargz-snapshotter's estargz.md; containers/storage's zstd-chunked.md). Their prefix was shorter in
// containers/storage of 2022.
const (
	stargzDigest   = "containerd.io/snapshot/stargz/toc.digest"
	chunkedDigest  = "zstd-chunked.manifest-checksum"
	chunkedPlace   = "zstd-chunked.manifest-position"
	chunkedPrefix  = "io.github.containers."
	chunkedPrefix1 = "io.containers."
)

// Bounds of a table, in bytes: as it is sent, and as it is in JSON.
const (
	maxSent = 64 << 20
	maxJSON = 128 << 20
)

// place is where a table lies in its blob, and what it must be.
type place struct {
	kind     byte // of the chunks, too: kindGzip or kindZstd
	off, len int64
	json     int64          // bytes uncompressed
	at       int64          // kindGzip: where the JSON begins in the tar that it is in
	digest   digest.Digest  // kindGzip: of the JSON; kindZstd: as it is sent
	file     tarindex.Entry // kindGzip: the table is a file of the layer, too
}

// Offered reports whether a descriptor promises a table of contents.
func Offered(d ocispec.Descriptor) bool {
	_, err := locate(d)
	return err == nil
}

func locate(d ocispec.Descriptor) (p place, err error) {
	none := errdef.New(errdef.NotImplemented, "layer %s: it has no table of contents (zstd:chunked or eStargz)", d.Digest)
	for _, prefix := range []string{chunkedPrefix, chunkedPrefix1} {
		sum, at := d.Annotations[prefix+chunkedDigest], d.Annotations[prefix+chunkedPlace]
		if sum == "" || at == "" {
			continue
		}
		p.kind = kindZstd
		if p.digest, err = ref.ParseDigest(sum); err != nil {
			return p, errdef.New(errdef.InvalidArgument, "layer %s: annotation %s: %w", d.Digest, prefix+chunkedDigest, err)
		}
		var n [4]int64
		parts := strings.Split(at, ":")
		for i := range parts {
			if len(parts) != len(n) {
				err = strconv.ErrSyntax
			} else if err == nil {
				n[i], err = strconv.ParseInt(parts[i], 10, 64)
			}
		}
		p.off, p.len, p.json = n[0], n[1], n[2]
		if err != nil || p.off < 0 || p.len <= 0 || p.json <= 0 || p.off > d.Size || p.len > d.Size-p.off {
			return p, errdef.New(errdef.InvalidArgument, "layer %s: annotation %s=%.60q: want OFFSET:LENGTH:LENGTH:TYPE within the %d bytes of the layer", d.Digest, prefix+chunkedPlace, at, d.Size)
		}
		if n[3] != 1 {
			return p, errdef.New(errdef.NotImplemented, "layer %s: its table of contents is of the unknown type %d", d.Digest, n[3])
		}
		return p, nil
	}
	if sum := d.Annotations[stargzDigest]; sum != "" {
		p.kind = kindGzip
		if p.digest, err = ref.ParseDigest(sum); err != nil {
			return p, errdef.New(errdef.InvalidArgument, "layer %s: annotation %s: %w", d.Digest, stargzDigest, err)
		}
		return p, nil
	}
	return p, none
}

// fetch puts the JSON into out when it is what the manifest promised; dir is for a nameless file.
func (p *place) fetch(ctx context.Context, blobs Blobs, d ocispec.Descriptor, dir string, out *os.File) error {
	if p.kind == kindGzip {
		if err := p.footer(ctx, blobs, d); err != nil {
			return err
		}
	}
	if p.len > maxSent || p.json > maxJSON {
		return errdef.New(errdef.NotImplemented, "%d bytes, %d uncompressed: more than %d and %d", p.len, p.json, maxSent, maxJSON)
	}
	sent, err := atomicfile.Nameless(dir, "lazy")
	if err != nil {
		return err
	}
	defer sent.Close()
	err = blobs.Section(ctx, d.Digest, p.off, p.off+p.len, func(b []byte, _ int64) error { _, err := sent.Write(b); return err })
	if err != nil {
		return err
	}
	whole := func(f *os.File) *io.SectionReader { return io.NewSectionReader(f, 0, 1<<62) }
	if p.kind == kindZstd {
		if err := p.check(whole(sent)); err != nil {
			return err
		}
		return p.fromZstd(whole(sent), out)
	}
	if err := p.fromTar(bufio.NewReader(whole(sent)), out); err != nil {
		return err
	}
	return p.check(p.text(out))
}

// text is the JSON.
func (p *place) text(f *os.File) *io.SectionReader { return io.NewSectionReader(f, p.at, p.json) }

// check compares what is read with the digest.
func (p *place) check(r io.Reader) error {
	got, err := digest.SHA256.FromReader(r)
	if err == nil && got != p.digest {
		err = errdef.New(errdef.DataLoss, "wrong digest: got %s, promised %s", got, p.digest)
	}
	return err
}

// Sizes of the last gzip member, which is empty and says where the table is: eStargz', and the stargz that it comes from.
const (
	footerSize    = 51
	oldFooterSize = 47
)

// footer finds out where the table of an eStargz is.
func (p *place) footer(ctx context.Context, blobs Blobs, d ocispec.Descriptor) error {
	if d.Size < footerSize {
		return errdef.New(errdef.DataLoss, "a blob of %d bytes has no room for an eStargz footer", d.Size)
	}
	var b []byte
	err := blobs.Section(ctx, d.Digest, d.Size-footerSize, d.Size, func(q []byte, _ int64) error { b = append(b, q...); return nil })
	if err != nil {
		return err
	}
	for _, size := range []int64{footerSize, oldFooterSize} {
		z, err := gzip.NewReader(bytes.NewReader(b[footerSize-size:]))
		if err != nil {
			continue
		}
		text := z.Header.Extra
		if size == footerSize && bytes.HasPrefix(text, []byte("SG\x16\x00")) {
			text = text[4:]
		}
		hex, ok := strings.CutSuffix(string(text), "STARGZ")
		if at, err := strconv.ParseInt(hex, 16, 64); ok && err == nil && len(hex) == 16 && at >= 0 && at < d.Size-size {
			p.off, p.len = at, d.Size-size-at
			return nil
		}
	}
	return errdef.New(errdef.DataLoss, "the blob does not end in an eStargz footer")
}

// tocName is the table's name in the tar of an eStargz.
const tocName = "stargz.index.json"

// fromTar inflates the tar that the table is in, and finds it there.
func (p *place) fromTar(r io.Reader, w io.Writer) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return errdef.New(errdef.DataLoss, "it is damaged: %w", err)
	}
	t := tarindex.New(tarindex.Limits{Entries: 4, Size: maxJSON})
	if _, err := io.Copy(io.MultiWriter(t, w), fragile{z}); err != nil {
		return err
	}
	all, err := t.Finish()
	if err != nil {
		return err
	}
	i := tree.Inode{}
	if id := all.Lookup(tocName); id != 0 {
		i = all.Inode(id)
	}
	if !i.IsReg() || i.Map != nil {
		return errdef.New(errdef.DataLoss, "%s is not in its place", tocName)
	}
	p.json, p.at = i.Size, i.Off
	p.file = tarindex.Entry{Type: '0', Name: tocName, Mode: int64(i.Mode & 0o7777), UID: int64(i.UID), GID: int64(i.GID), Size: i.Size, Sec: i.Sec, Nsec: i.Nsec}
	return nil
}

// fragile is a stream whose errors are those of what is inflated.
type fragile struct{ r io.Reader }

func (f fragile) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		err = errdef.New(errdef.DataLoss, "it is damaged: %w", err)
	}
	return n, err
}

// fromZstd inflates the table.
func (p *place) fromZstd(r io.Reader, w io.Writer) error {
	z, err := zstd.NewReader(r, zstdOptions...)
	if err != nil {
		return err
	}
	defer z.Close()
	n, err := io.Copy(w, io.LimitReader(fragile{z}, p.json+1))
	if err != nil {
		return err
	}
	if n != p.json {
		return errdef.New(errdef.DataLoss, "it has %d bytes or more uncompressed, promised %d", n, p.json)
	}
	return nil
}

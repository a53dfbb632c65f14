package image

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/linux/du"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/meta"
	"github.com/opencontainers/go-digest"
)

// InUse names the containers that use an image; nil means that nothing can.
type InUse func(id digest.Digest) []string

func (f InUse) of(id digest.Digest) []string {
	if f == nil {
		return nil
	}
	return f(id)
}

// change is what Remove and Prune decided, before it is done.
type change struct {
	tags, digests []string // canonical names that go
	images        []digest.Digest
	pulls         []digest.Digest // unfinished, of which only the record goes
	// moved are names that another image has from now on.
	heir  digest.Digest
	moved map[string][]string // by bucket
}

// Remove takes a name from an image, and with the last name, or by ID, the image and the layers nobody else needs. It returns
// what was untagged (names) and deleted (image and layer digests). An image that containers use is a Conflict; with force its
// names go and the image stays, nameless, to be pruned when they are gone. An image that is still arriving is no more on its way.
func (s *Store) Remove(name string, force bool, inUse InUse) (untagged, deleted []string, err error) {
	if untagged, ok, err := s.arrivals.stop(s, name, inUse); ok {
		return untagged, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.catalog()
	if err != nil {
		return nil, nil, err
	}
	id, err := c.find(name)
	if err != nil {
		return nil, nil, err
	}
	ch, err := c.removal(name, id, force, inUse.of(id))
	if err != nil {
		return nil, nil, err
	}
	for _, p := range c.orphans(ch.tags, ch.images) { // its other platforms go as well
		if len(inUse.of(p)) == 0 {
			ch.images, ch.digests = append(ch.images, p), append(ch.digests, namesOf(c.digests, p)...)
		}
	}
	return s.apply(c, ch)
}

// removal decides; it changes nothing.
func (c catalog) removal(name string, imageID digest.Digest, force bool, users []string) (change, error) {
	tags, digests := namesOf(c.tags, imageID), namesOf(c.digests, imageID)
	short := id.Short(imageID.String())
	r, err := ref.Parse(name)
	_, byName := c.named(r)
	if byName = byName && err == nil; byName && len(tags) > 1 && r.Digest == "" {
		ch := change{tags: []string{r.String()}}
		if !slices.ContainsFunc(tags, func(t string) bool { return t != r.String() && strings.HasPrefix(t, r.Name()+":") }) {
			for _, d := range digests { // the last tag of a repository takes its digests along
				if strings.HasPrefix(d, r.Name()+"@") {
					ch.digests = append(ch.digests, d)
				}
			}
		}
		return ch, nil
	}
	if byName && r.Digest != "" && (len(tags) > 0 || len(digests) > 1) {
		return change{digests: []string{r.WithDigest(r.Digest).String()}}, nil
	}
	if !byName && !force && repositories(tags) > 1 {
		return change{}, errdef.New(errdef.Conflict, "conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", short)
	}
	ch := change{tags: tags, digests: digests, images: []digest.Digest{imageID}}
	switch {
	case len(users) == 0:
	case !force && byName:
		return change{}, errdef.New(errdef.Conflict, "conflict: unable to remove repository reference %q (must be forced) - container %s is using its referenced image %s",
			printable(name), id.Short(users[0]), short)
	case !force:
		return change{}, errdef.New(errdef.Conflict, "conflict: unable to delete %s (must be forced) - image is being used by container %s", short, id.Short(users[0]))
	default:
		ch.images = nil
		if len(tags)+len(digests) == 0 {
			return change{}, errdef.New(errdef.Conflict, "conflict: unable to delete %s (cannot be forced) - image is being used by container %s", short, id.Short(users[0]))
		}
	}
	return ch, nil
}

func repositories(tags []string) int {
	seen := map[string]bool{}
	for _, t := range tags {
		seen[t[:strings.LastIndexByte(t, ':')]] = true
	}
	return len(seen)
}

// apply does a change: the records in one transaction, then the files nobody refers to any more. Call it with mu held. A
// crash in between leaves files that gc.Sweep removes.
func (s *Store) apply(c catalog, ch change) (untagged, deleted []string, err error) {
	if err := roomy(s, func() error { return s.c.DB.Update(ch.unrecord) }); err != nil {
		return nil, nil, fmt.Errorf("remove image: %w", err)
	}
	for _, n := range ch.tags {
		delete(c.tags, n)
		untagged = append(untagged, familiar(n))
	}
	for _, n := range ch.digests {
		delete(c.digests, n)
		untagged = append(untagged, familiar(n))
	}
	var gone []record
	for _, d := range ch.images {
		gone = append(gone, c.images[d])
		delete(c.pulls, d)
		delete(c.images, d)
		deleted = append(deleted, d.String())
	}
	more, err := s.discard(c, gone)
	if ierr := roomy(s, func() error { return s.writeIndex(false) }); err == nil {
		err = ierr // after the files went: on a full disk there is room for it now
	}
	return untagged, append(deleted, more...), err
}

// unrecord removes the records.
func (ch change) unrecord(tx *meta.Tx) error {
	keys := map[string][]string{bucketTags: ch.tags, bucketDigests: ch.digests}
	for _, d := range ch.images {
		keys[bucketImages] = append(keys[bucketImages], d.String())
	}
	for _, d := range append(ch.pulls[:len(ch.pulls):len(ch.pulls)], ch.images...) {
		keys[bucketPulls] = append(keys[bucketPulls], d.String())
	}
	for bucket, all := range keys {
		for _, k := range all {
			if err := tx.Delete(bucket, k); err != nil {
				return err
			}
		}
	}
	for _, k := range ch.moved[bucketDigests] {
		if err := tx.Put(bucketDigests, k, ch.heir); err != nil {
			return err
		}
	}
	for _, k := range ch.moved[bucketTags] {
		var t tagged
		if _, err := tx.Get(bucketTags, k, &t); err != nil {
			return err
		}
		t.ID = ch.heir
		if err := tx.Put(bucketTags, k, t); err != nil {
			return err
		}
	}
	return nil
}

// roomy does what takes space, and when the disk is full once more with the space of what was removed a moment ago.
func roomy(s *Store, do func() error) error {
	freed := s.c.Layers.Free()
	select {
	case <-freed:
		return do()
	default:
	}
	err := do()
	if full(err) {
		<-freed
		err = do()
	}
	return err
}

func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// discard removes the files of records that are gone, where no other record and no pull needs them. The space of layers comes back later.
func (s *Store) discard(c catalog, gone []record) (deleted []string, err error) {
	defer s.c.Layers.Free()
	live := c.live(s.pins)
	for _, r := range gone {
		if chain := layer.ChainID(r.Layers); chain != "" && !c.chains()[chain] {
			if err := s.c.Layers.RemoveMerged(chain); err != nil {
				return deleted, err
			}
		}
		for _, d := range slices.Backward(r.Layers) {
			if live[d] || !s.c.Layers.Has(d) {
				continue
			}
			if err := s.c.Layers.Remove(d); err != nil {
				return deleted, err
			}
			deleted = append(deleted, d.String())
		}
		for _, d := range slices.Concat(r.Blobs, r.Beside) {
			if live[d] {
				continue
			}
			if err := s.c.Content.Remove(d); err != nil {
				return deleted, err
			}
		}
	}
	return deleted, nil
}

// live is every digest that a record, an unfinished pull or a pin needs: blobs and diff IDs together.
func (c catalog) live(pins map[digest.Digest]int) map[digest.Digest]bool {
	live := map[digest.Digest]bool{}
	now := time.Now()
	for _, u := range c.pulls {
		if u.live(now) {
			for _, d := range u.Layers {
				live[d] = true
			}
		}
	}
	for d := range pins {
		live[d] = true
	}
	for id, r := range c.images {
		live[id] = true
		for _, d := range slices.Concat(r.Blobs, r.Beside, r.Layers) {
			live[d] = true
		}
	}
	return live
}

// chains are the chain IDs of all images: the merged indexes worth keeping.
func (c catalog) chains() map[digest.Digest]bool {
	chains := map[digest.Digest]bool{}
	for _, r := range c.images {
		chains[layer.ChainID(r.Layers)] = true
	}
	return chains
}

// Live is what must stay: blobs and diff IDs, and the chain IDs of merged layers.
type Live struct{ Digests, Chains map[digest.Digest]bool }

// Freeze calls fn with everything that must stay, while no image is recorded, removed or begun to be pulled. fn must not call
// the Store.
func (s *Store) Freeze(fn func(Live) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.catalog()
	if err != nil {
		return err
	}
	return fn(Live{c.live(s.pins), c.chains()})
}

// Stands reports whether an image is here and stays as long as it has users: a removal that was decided before is over then. Who is one of the
// users that Remove and Prune ask for, before he asks this, has the image until he is none.
func (s *Store) Stands(id digest.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.catalog()
	if err != nil {
		return err
	}
	if _, ok := c.images[id]; !ok && !s.arrivals.stands(id) {
		return errdef.New(errdef.NotFound, "No such image: %s", id)
	}
	return nil
}

// PruneOptions choose images: nameless ones, or with All every one that no container uses.
type PruneOptions struct {
	All    bool
	Until  time.Time // zero: any age; else only images made before
	Labels func(map[string]string) bool
	InUse  InUse
}

// Prune removes what the options choose, and without a filter what unfinished pulls have brought. It tells what was untagged and deleted,
// and how many bytes of layers went; their space is free when it returns.
func (s *Store) Prune(o PruneOptions) (untagged, deleted []string, freed int64, err error) {
	defer func() { <-s.c.Layers.Free() }() // without the lock
	s.mu.Lock()
	defer s.mu.Unlock()
	var left []string
	if o.Until.IsZero() && o.Labels == nil {
		if left, freed, err = abandon(s, func(digest.Digest) bool { return true }); err != nil {
			return nil, left, freed, err
		}
		n, err := s.c.Content.Partial().Clear()
		if freed += n; err != nil {
			return nil, left, freed, err
		}
	}
	c, err := s.catalog()
	if err != nil {
		return nil, nil, 0, err
	}
	var ch change
	for id, r := range c.images {
		tags := namesOf(c.tags, id)
		if !o.All && (len(tags) > 0 || c.partOf(id) != "") || len(o.InUse.of(id)) > 0 || !o.Until.IsZero() && !r.Created.Before(o.Until) {
			continue
		}
		if o.Labels != nil {
			img, err := s.load(id, r)
			if err != nil {
				return nil, nil, 0, err
			}
			if !o.Labels(img.Config.Config.Labels) {
				continue
			}
		}
		ch.tags = append(ch.tags, tags...)
		ch.digests = append(ch.digests, namesOf(c.digests, id)...)
		ch.images = append(ch.images, id)
	}
	if len(ch.images) == 0 {
		return nil, left, freed, nil
	}
	var gone []record
	for _, id := range ch.images {
		gone = append(gone, c.images[id])
	}
	sizes := sizesOf(s, gone)
	untagged, deleted, err = s.apply(c, ch)
	for _, d := range deleted {
		freed += sizes[d]
	}
	return untagged, append(left, deleted...), freed, err
}

// sizesOf tells what the layers of records take on disk.
func sizesOf(s *Store, all []record) map[string]int64 {
	sizes := map[string]int64{}
	for _, r := range all {
		for _, d := range r.Layers {
			sizes[d.String()] = du.Of(layer.Dir(s.c.Layers, d))
		}
	}
	return sizes
}

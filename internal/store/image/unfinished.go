package image

import (
	"errors"
	"fmt"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/opencontainers/go-digest"
)

// bucketPulls holds what pulls that have not ended well were to bring: image ID -> unfinished.
const bucketPulls = "image-pulls"

// keepUnfinished is how long the whole layers of a pull that broke off wait for the next try.
const keepUnfinished = 24 * time.Hour

// unfinished keeps the layers that a pull has brought from being collected while no image has them: over a crash, and over a failure that
// another try may mend.
type unfinished struct {
	Layers []digest.Digest // diff IDs, those that were here before among them
	Since  time.Time
}

func (u unfinished) live(now time.Time) bool {
	age := now.Sub(u.Since)
	return age > -keepUnfinished && age < keepUnfinished
}

// begin notes what a pull is about to bring. commit removes the note.
func begin(s *Store, id digest.Digest, layers []digest.Digest) error {
	missing := false
	for _, d := range layers {
		missing = missing || !s.c.Layers.Has(d)
	}
	if !missing {
		return nil
	}
	if err := s.c.DB.Put(bucketPulls, id.String(), unfinished{layers, time.Now().UTC()}); err != nil {
		return fmt.Errorf("record pull of image %s: %w", id, err)
	}
	return nil
}

// spoiled tells whether bytes that came are to blame for an error, rather than their way here or the place where they go.
func spoiled(err error) bool {
	kind := errdef.KindOf(err)
	return kind == errdef.DataLoss || kind == errdef.InvalidArgument || kind == errdef.NotImplemented
}

// broke cleans up after a failed pull, which has no pins any more. The layers it has brought wait for the next try where one may succeed;
// else, and where the disk is full, they go at once. So does what came of the blobs of others, but that waits for anything that can be mended.
func broke(s *Store, id digest.Digest, docs, blobs []digest.Digest, cause error) error {
	kind := errdef.KindOf(cause)
	again := !full(cause) && (kind == errdef.Unavailable || kind == errdef.Cancelled)
	if spoiled(cause) {
		s.c.Content.Partial().Remove(blobs...)
	}
	if full(cause) {
		s.c.Content.Partial().Clear() // of whichever pull: images need the room more
	}
	if !again { // nothing is left by the time that somebody reads of it
		defer func() { <-s.c.Layers.Free() }()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _, err := abandon(s, func(other digest.Digest) bool { return other == id && !again })
	if c, cerr := s.catalog(); cerr == nil {
		_, cerr = s.discard(c, []record{{Blobs: docs}})
		err = errors.Join(err, cerr)
	}
	if err != nil {
		return errors.Join(cause, err)
	}
	return cause
}

// abandon forgets unfinished pulls that are not running, and removes the layers that only they have. The files go first: on a full disk
// there is room for the records then. Call it with mu held.
func abandon(s *Store, which func(id digest.Digest) bool) (deleted []string, freed int64, err error) {
	c, err := s.catalog()
	if err != nil {
		return nil, 0, err
	}
	var gone []record
	var ids []digest.Digest
	for id, u := range c.pulls {
		if s.pins[id] == 0 && which(id) {
			ids = append(ids, id)
			gone = append(gone, record{Layers: u.Layers})
			delete(c.pulls, id)
		}
	}
	if len(ids) == 0 {
		return nil, 0, nil
	}
	sizes := sizesOf(s, gone)
	deleted, err = s.discard(c, gone)
	for _, d := range deleted {
		freed += sizes[d]
	}
	if err != nil {
		return deleted, freed, err
	}
	if err = roomy(s, func() error { return s.c.DB.Update(change{pulls: ids}.unrecord) }); err != nil {
		err = fmt.Errorf("forget unfinished pulls: %w", err)
	}
	return deleted, freed, err
}

package layer

import (
	"os"

	"github.com/opencontainers/go-digest"
)

// tars are the tars of a chain, lowest first, as Inode.Dev counts them.
type tars []*os.File

func openTars(s *Store, chain []digest.Digest) (t tars, err error) {
	for _, d := range chain {
		f, err := s.OpenTar(d)
		if err != nil {
			t.close()
			return nil, err
		}
		t = append(t, f)
	}
	return t, nil
}

func (t tars) close() {
	for _, f := range t {
		f.Close()
	}
}

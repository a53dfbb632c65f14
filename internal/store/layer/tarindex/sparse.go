package tarindex

import (
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// sparseMap is what headers say of a sparse file (GNU tar's manual, "Storing Sparse Files"). Type S has the first four pieces in its header and
// more in blocks behind it; format 0.0 has a record a number, 0.1 one record, 1.0 text before the data.
type sparseMap struct {
	size    int64
	name    string
	extents []tree.Extent
	at      int64  // format 0.0: the offset whose length comes next
	more    bool   // type S: another block of pieces follows
	text    bool   // format 1.0: the map stands before the data
	buf     string // of that map, as far as it has come
}

// old reads pieces of type S, 24 bytes each; a piece whose fields are empty is none.
func (s *sparseMap) old(n numbers, b []byte) {
	for ; len(b) >= 24; b = b[24:] {
		if b[0] != 0 && b[12] != 0 {
			s.add(n.parse("sparse offset", b[:12]), n.parse("sparse length", b[12:24]))
		}
	}
}

func (s *sparseMap) add(at, length int64) {
	if len(s.extents) <= tree.MaxExtents { // one more than allowed is refused in the end
		s.extents = append(s.extents, tree.Extent{At: at, Len: length})
	}
}

// pax takes one record GNU.sparse.KEY.
func (s *sparseMap) pax(key, value string) (err error) {
	number := func(v string) (n int64) {
		if n, err = strconv.ParseInt(v, 10, 64); err == nil && n < 0 {
			err = strconv.ErrRange
		}
		return n
	}
	switch key {
	case "size", "realsize":
		s.size = number(value)
	case "name":
		s.name = value
	case "offset":
		s.at = number(value)
	case "numbytes":
		s.add(s.at, number(value))
	case "map":
		for parts := strings.Split(value, ","); len(parts) > 1 && err == nil && len(s.extents) <= tree.MaxExtents; parts = parts[2:] {
			at := number(parts[0])
			if err == nil {
				s.add(at, number(parts[1]))
			}
		}
	case "major":
		s.text = number(value) == 1
		if err == nil && value != "0" && value != "1" {
			return errdef.New(errdef.NotImplemented, "GNU.sparse.major=%.20q: only 0 and 1 are known", value)
		}
	case "minor", "numblocks":
	default:
		return errdef.New(errdef.NotImplemented, "GNU.sparse.%.60q is not known", key)
	}
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "GNU.sparse.%s=%.40q is no number", key, value)
	}
	return nil
}

// feed takes one more block of the map of format 1.0 and reports whether it is whole: the number of pieces, then offset and length of each,
// a line a number, padded to a block.
func (s *sparseMap) feed(b string) (whole bool, err error) {
	s.buf += b
	lines := strings.Split(s.buf, "\n") // behind the last newline the next number begins, or the padding
	numbers := make([]int64, 0, len(lines))
	for _, l := range lines[:len(lines)-1] {
		if l == "" || l[0] == 0 {
			break
		}
		n, err := strconv.ParseInt(l, 10, 64)
		if err != nil || n < 0 {
			return false, errdef.New(errdef.InvalidArgument, "the map of a sparse file holds %.40q, which is no number", l)
		}
		if numbers = append(numbers, n); numbers[0] > tree.MaxExtents {
			return false, errdef.New(errdef.InvalidArgument, "a sparse file in %d pieces: more than %d", numbers[0], tree.MaxExtents)
		}
		if int64(len(numbers)) == 1+2*numbers[0] {
			for k := 1; k < len(numbers); k += 2 {
				s.add(numbers[k], numbers[k+1])
			}
			s.buf = ""
			return true, nil
		}
	}
	if len(s.buf) > 64*(1+2*tree.MaxExtents) {
		return false, errdef.New(errdef.InvalidArgument, "the map of a sparse file does not end")
	}
	return false, nil
}

package erofs_test

import (
	"bytes"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer/erofs"
	"github.com/dhow-containers/dhow/internal/store/layer/tarindex"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
	"github.com/dhow-containers/dhow/internal/testkit/torture"
)

// FuzzLayers takes two tars all the way: read, stored as trees, laid over each other, written as images. What a layer is refused for is
// its maker's fault; no panic, no image that is no image, and the same one for the same trees.
func FuzzLayers(f *testing.F) {
	cases := torture.Cases(f, "/host/folder")
	for i, c := range cases {
		f.Add(c.Tar, cases[(i+7)%len(cases)].Tar)
	}
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		merged := tree.NewTable()
		var devices []erofs.Device
		for n, b := range [][]byte{lower, upper} {
			b = bytes.Clone(b)
			torture.Seal(b) // or no changed header would ever be read
			p := tarindex.New(tarindex.Limits{Entries: 500, Special: 1 << 16})
			_, err := p.Write(b)
			var layer *tree.Table
			if err == nil {
				layer, err = p.Finish()
			}
			if errdef.Is(err, errdef.DataLoss) { // it is cut off
				return
			}
			if err != nil {
				fault(t, err)
				return
			}
			size := int64(len(b)+511) &^ 511
			var enc bytes.Buffer
			if err := layer.Encode(&enc); err != nil {
				t.Fatal(err)
			}
			devices = append(devices, erofs.Device{Size: size})
			if err := merged.Lay(bytes.NewReader(enc.Bytes()), int64(enc.Len()), uint16(n), true); err != nil {
				fault(t, err) // a hard link to what no layer below has
				return
			}
		}
		write(t, merged, devices)
	})
}

func fault(t *testing.T, err error) {
	if !errdef.Is(err, errdef.InvalidArgument) && !errdef.Is(err, errdef.NotImplemented) {
		t.Fatal(err)
	}
}

func write(t *testing.T, table *tree.Table, devices []erofs.Device) {
	var one, two bytes.Buffer
	n, err := erofs.WriteTable(&one, table, devices)
	if _, again := erofs.WriteTable(&two, table, devices); (again == nil) != (err == nil) {
		t.Fatalf("%v, and again %v", err, again)
	}
	if err != nil {
		fault(t, err)
		return
	}
	if n != int64(one.Len()) || n%4096 != 0 || !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Fatalf("an image of %d bytes, %d were written; equal again: %v", n, one.Len(), bytes.Equal(one.Bytes(), two.Bytes()))
	}
}

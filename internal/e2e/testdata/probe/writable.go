package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// writable prints each file below the roots that says it may be written to and opens for it, processes' own left out, with N for numbers, which
// machines have differently. Nothing is written.
func writable(roots ...string) error {
	number := regexp.MustCompile(`[0-9]+`)
	var found []string
	for _, root := range roots {
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return nil // gone, or not to be read
			case d.IsDir():
				if pid, ok := strings.CutPrefix(p, "/proc/"); ok && strings.Trim(pid, "0123456789") == "" {
					return fs.SkipDir
				}
				return nil
			}
			if fi, err := os.Lstat(p); err != nil || !fi.Mode().IsRegular() || fi.Mode()&0o222 == 0 { // a mask is a device
				return nil
			}
			f, err := os.OpenFile(p, os.O_WRONLY|syscall.O_NONBLOCK, 0)
			if err != nil {
				return nil
			}
			f.Close()
			if name := number.ReplaceAllString(p, "N"); !slices.Contains(found, name) {
				found = append(found, name)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	slices.Sort(found)
	for _, p := range found {
		fmt.Println(p)
	}
	return nil
}

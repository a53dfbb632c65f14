// Command leave takes from the host what an engine that has ended leaves on purpose, for the next engine: its bridge and its nft
// table. The demo runs it when it was the one who started the engine.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/linux/nft"
)

func main() {
	bridge := flag.String("bridge", "", "`device` to delete")
	table := flag.String("table", "", "nft `table` to delete")
	flag.Parse()
	if err := leave(*bridge, *table); err != nil {
		fmt.Fprintln(os.Stderr, "leave:", err)
		os.Exit(1)
	}
}

func leave(bridge, table string) error {
	if bridge != "" {
		h, err := netlink.Open()
		if err != nil {
			return err
		}
		defer h.Close()
		if err := h.Delete(bridge); err != nil {
			return err
		}
	}
	if table == "" {
		return nil
	}
	t := nft.Open(table)
	defer t.Close()
	if there, err := t.Exists(); err != nil || !there {
		return err
	}
	b := t.Begin()
	b.DeleteTable()
	return b.Commit()
}

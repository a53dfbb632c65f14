package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// nftablesGroup is NFNLGRP_NFTABLES, the multicast group of changes to any ruleset of the namespace.
const nftablesGroup = 7

// Watch calls changed after each removal of a table, chain, rule or set by anybody, until ctx ends. Removals made by changed
// itself come back too, so it must remove nothing when all is right.
func Watch(ctx context.Context, changed func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open nft event socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "nft events") // a pollable file: Close ends Read
	defer f.Close()
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("bind nft event socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, nftablesGroup); err != nil {
		return fmt.Errorf("join nft events: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // events were lost: anything may have changed
			changed()
		case err != nil:
			return fmt.Errorf("read nft events: %w", err)
		case removal(buf[:n]):
			changed()
		}
	}
}

// removal looks through netlink messages for one that takes something away.
func removal(b []byte) bool {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		kind := binary.NativeEndian.Uint16(b[4:])
		if kind>>8 == unix.NFNL_SUBSYS_NFTABLES {
			switch kind & 0xff {
			case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET:
				return true
			}
		}
		size = (size + 3) &^ 3
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false
		}
		b = b[size:]
	}
	return false
}

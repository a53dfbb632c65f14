package probe

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// nftables asks nf_tables for its generation, the cheapest question it answers.
func nftables() string {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Sprintf("netlink socket for netfilter: %v", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return fmt.Sprintf("set receive timeout: %v", err)
	}
	const length, getGeneration = 20, unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN
	msg := binary.NativeEndian.AppendUint32(nil, length)
	msg = binary.NativeEndian.AppendUint16(msg, getGeneration)
	msg = binary.NativeEndian.AppendUint16(msg, unix.NLM_F_REQUEST)
	msg = append(msg, make([]byte, 12)...) // sequence, port, nfgenmsg
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Sprintf("ask nf_tables: %v", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < 20 {
		return fmt.Sprintf("no answer from nf_tables: %v", err)
	}
	if binary.NativeEndian.Uint16(answer[4:]) == unix.NLMSG_ERROR {
		errno := unix.Errno(-int32(binary.NativeEndian.Uint32(answer[16:])))
		if errno == unix.EPERM {
			return "reading nf_tables needs CAP_NET_ADMIN"
		}
		return fmt.Sprintf("nf_tables answers %v; the kernel lacks CONFIG_NF_TABLES or its module", errno)
	}
	return ""
}

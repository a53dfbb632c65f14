package plan

import (
	"fmt"
	"slices"
)

// IP protocol numbers that ports are published for.
const (
	TCP  uint8 = 6
	UDP  uint8 = 17
	SCTP uint8 = 132
)

// ProtoName is the word for a protocol number.
func ProtoName(p uint8) string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprint(p)
}

// ProtoNumber is the inverse of ProtoName; the empty word means tcp.
func ProtoNumber(s string) (uint8, bool) {
	switch s {
	case "", "tcp":
		return TCP, true
	case "udp":
		return UDP, true
	case "sctp":
		return SCTP, true
	}
	return 0, false
}

func sorted(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

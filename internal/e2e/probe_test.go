package e2e

import (
	"fmt"
	"net"
	"os"
)

// probe is what runs inside containers: args say what.
func probe(args []string) int {
	if err := act(args); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		return 1
	}
	return 0
}

func act(args []string) error {
	switch args[0] {
	case "udp-echo":
		return echoUDP(args[1])
	}
	return fmt.Errorf("do not know how to %s", args[0])
}

// echoUDP answers every datagram with "echo " and the same.
func echoUDP(addr string) error {
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		c.WriteTo(append([]byte("echo "), buf[:n]...), from)
	}
}

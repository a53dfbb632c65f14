package network

import (
	"fmt"
	"os"

	"github.com/dhow-containers/dhow/internal/network/apply"
)

// assertForwarding makes the host forward packets. Who was no router before does not become one for others: the rules then
// drop what neither comes from nor goes to a container. That is remembered until the next boot.
func (g registry) assertForwarding(v6 bool) error {
	boot, err := apply.ReadSysctl("kernel/random/boot_id")
	if err != nil {
		return err
	}
	var made string
	if _, err := g.cfg.Records.Get(keyRouter, &made); err != nil {
		return err
	}
	on, err := apply.ReadSysctl("net/ipv4/ip_forward")
	if err != nil {
		return err
	}
	if on != "1" {
		if err := g.cfg.Records.Put(keyRouter, boot); err != nil {
			return err
		}
		made = boot
		if err := apply.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
			return err
		}
		g.log.Info("net.ipv4.ip_forward switched on for container networks; other forwarding stays closed by table inet " + g.cfg.Table)
	}
	g.mu.Lock()
	g.route = made == boot
	g.mu.Unlock()
	if v6 {
		return g.forward6()
	}
	return nil
}

// forward6 makes the host forward IPv6. A forwarding host ignores router advertisements unless accept_ra is 2: devices that
// took them go on taking them.
func (g registry) forward6() error {
	on, err := apply.ReadSysctl("net/ipv6/conf/all/forwarding")
	if err != nil || on == "1" {
		return err
	}
	devices, err := os.ReadDir("/proc/sys/net/ipv6/conf")
	if err != nil {
		return fmt.Errorf("list IPv6 devices: %w", err)
	}
	for _, d := range devices {
		key := "net/ipv6/conf/" + d.Name() + "/accept_ra"
		if v, err := apply.ReadSysctl(key); err == nil && v == "1" {
			if err := apply.Sysctl(key, "2"); err != nil {
				return err
			}
		}
	}
	g.log.Info("net.ipv6.conf.all.forwarding switched on for container networks; accept_ra=1 became 2")
	return apply.Sysctl("net/ipv6/conf/all/forwarding", "1")
}

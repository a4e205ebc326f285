package isp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

const (
	clientPort = 546
	serverPort = 547
)

// allServers is All_DHCP_Relay_Agents_and_Servers (RFC 9915 §7.1).
var allServers = netip.MustParseAddr("ff02::1:2")

// sockets belong to the network namespace in which they were opened, wherever they are used.
type sockets struct {
	dhcp     *net.UDPConn
	ra       *ndp.Conn
	hardware net.HardwareAddr
}

// Open opens the sockets in the network namespace of the calling thread (netlab's NS.Do), after waiting for a link-local
// address: duplicate address detection holds it back for one to two seconds. From here on requests are queued for Run.
func (p *Provider) Open(ctx context.Context) error {
	p.mu.Lock()
	name, open := p.server.cfg.Interface, p.sockets != nil
	p.mu.Unlock()
	if open {
		return errors.New("provider: is already open")
	}
	if err := waitLinkLocal(ctx, name); err != nil {
		return fmt.Errorf("provider on %s: %w", name, err)
	}
	s, err := openSockets(ctx, name)
	if err != nil {
		return fmt.Errorf("provider on %s: %w", name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sockets = s
	return nil
}

func openSockets(ctx context.Context, name string) (_ *sockets, err error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	s := &sockets{hardware: ifi.HardwareAddr}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if s.dhcp, err = listenDHCP(ctx, ifi); err != nil {
		return nil, err
	}
	if s.ra, err = listenRS(ifi); err != nil {
		return nil, err
	}
	return s, nil
}

// listenDHCP binds to the device rather than to an address: that survives changes of the link-local address, lets several
// providers live in one namespace, and makes zones unnecessary.
func listenDHCP(ctx context.Context, ifi *net.Interface) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		controlErr := c.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.BindToDevice(int(fd), ifi.Name))
		})
		return errors.Join(controlErr, err)
	}}
	pc, err := lc.ListenPacket(ctx, "udp6", net.JoinHostPort("::", strconv.Itoa(serverPort)))
	if err != nil {
		return nil, err
	}
	if err := ipv6.NewPacketConn(pc).JoinGroup(ifi, net.UDPAddrFromAddrPort(netip.AddrPortFrom(allServers, 0))); err != nil {
		_ = pc.Close()
		return nil, fmt.Errorf("join %s: %w", allServers, err)
	}
	return pc.(*net.UDPConn), nil
}

// listenRS gives the library the interface under its number: it uses the name as a zone, and Go looks zones up in a cache
// that other network namespaces have filled.
func listenRS(ifi *net.Interface) (*ndp.Conn, error) {
	numbered := *ifi
	numbered.Name = strconv.Itoa(ifi.Index)
	c, _, err := ndp.Listen(&numbered, ndp.LinkLocal)
	if err != nil {
		return nil, fmt.Errorf("listen for Router Solicitations: %w", err)
	}
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterSolicitation)
	err = errors.Join(c.SetICMPFilter(&filter), c.SetControlMessage(ipv6.FlagHopLimit, true), c.JoinGroup(allRouters))
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen for Router Solicitations: %w", err)
	}
	return c, nil
}

// Close closes what is open.
func (s *sockets) Close() (err error) {
	if s.dhcp != nil {
		err = s.dhcp.Close()
	}
	if s.ra != nil {
		err = errors.Join(err, s.ra.Close())
	}
	return err
}

// send sends to the client's port, whatever port the client has used (RFC 9915 §7.2).
func (s *sockets) send(to netip.Addr, datagram []byte) error {
	_, err := s.dhcp.WriteToUDPAddrPort(datagram, netip.AddrPortFrom(to, clientPort))
	return err
}

// waitLinkLocal waits until ctx is done, at most.
func waitLinkLocal(ctx context.Context, name string) error {
	for {
		usable, err := hasLinkLocal(name)
		if err != nil || usable {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for a link-local address: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// hasLinkLocal reads /proc/net/if_inet6: address, index, prefix length, scope, flags (hexadecimal), and the name.
func hasLinkLocal(name string) (bool, error) {
	f, err := os.Open("/proc/thread-self/net/if_inet6")
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 6 || fields[5] != name || !strings.HasPrefix(fields[0], "fe80") {
			continue
		}
		flags, err := strconv.ParseUint(fields[4], 16, 32)
		if err == nil && flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
			return true, nil
		}
	}
	return false, lines.Err()
}

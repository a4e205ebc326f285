package rtnl

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
	"uplinkd/internal/netlab"
)

// deadSources is the table of kernel's Example_deadSources, for the device v0.
func deadSources(dead ...string) kernel.Table {
	var prefixes []netip.Prefix
	for _, p := range dead {
		prefixes = append(prefixes, prefix(p))
	}
	lans := []string{"v0", "u0"}
	rules := kernel.Ruleset{
		Sets: []kernel.Set{kernel.DeviceSet("downstreams", lans), kernel.PrefixSet("dead", prefixes)},
		Chains: []kernel.Chain{
			{Name: "dead_source", Rules: []string{"ip6 daddr { fe80::/10, ff00::/8 } return", "fib daddr type { local, anycast } return",
				"fib daddr oifname " + kernel.Devices(lans) + " return", "meta l4proto tcp reject with tcp reset", "reject with icmpv6 type policy-fail"}},
			{Name: "prerouting", Hook: kernel.Hook{Type: "filter", Point: "prerouting", Priority: "raw"},
				Rules: []string{"iifname @downstreams ip6 saddr @dead jump dead_source"}},
		},
	}
	return kernel.Table{Family: "ip6", Body: rules.Text()}
}

// The server beyond the uplink, reached by the default route only, and where it is on a downstream.
const (
	far  = "2001:db8:ff::2"
	near = "2001:db8:4::2"
)

// site is a host with addresses of two prefixes, the test's own namespace as its router, and the server. 2001:db8:1::/48 has
// been withdrawn: the router has no address and no rule of it any more, and its strict rule makes foreign sources
// unreachable. The on-link route stays: without it no answer would find the host.
func site(t *testing.T) (k *Kernel, host *netlab.NS) {
	t.Helper()
	k = nftLab(t, options{})
	l := netlab.New(t)
	host, server := l.NS("host"), l.NS("server")
	ip(t, "link set v1 netns "+host.Path())
	ip(t, "link add w0 type veth peer name w1 netns "+server.Path())
	ip(t, "link add u0 type veth peer name u1 netns "+server.Path()) // the server is on another LAN too
	t.Cleanup(func() { ip(t, "link del w0"); ip(t, "link del u0") })
	for _, args := range []string{"link set w0 up", "link set u0 up", "address add 2001:db8:4::1/64 dev u0 nodad", "address add fe80::1/64 dev v0 nodad", "address add 2001:db8:f::1/64 dev w0 nodad",
		"address add 2001:db8:2::1/64 dev v0 nodad",
		"-6 route add default via 2001:db8:f::2 dev w0 proto static",
		"-6 rule add pref 1000 lookup main suppress_prefixlength 0", "-6 rule add pref 1001 from 2001:db8:2::/48 lookup main",
		"-6 rule add pref 1003 from 2001:db8::/32 iif v0 unreachable"} {
		ip(t, args)
	}
	apply(t, k, kernel.State{}, kernel.State{Sysctls: []kernel.Sysctl{{Name: "net.ipv6.conf.all.forwarding", Value: "1"}},
		Routes: []kernel.Route{{Table: kernel.TableMain, Dst: prefix("2001:db8:1::/64"), Metric: 256, Type: kernel.Unicast, Dev: "v0"}}})
	host.Sysctl("net.ipv6.conf.v1.accept_dad", "0")
	host.IP("link set v1 up")
	for _, a := range []string{"2001:db8:1::2/64", "2001:db8:2::2/64"} {
		host.IP("address add %s dev v1 nodad", a)
	}
	host.IP("-6 route add default via fe80::1 dev v1")
	server.IP("link set w1 up")
	server.IP("link set u1 up")
	server.IP("address add %s/64 dev u1 nodad", near)
	server.IP("address add 2001:db8:f::2/64 dev w1 nodad")
	server.IP("address add %s/128 dev lo nodad", far)
	server.IP("-6 route add default via 2001:db8:f::1 dev w1")
	if err := server.Do(func() error { return errors.Join(echo(t, far), echo(t, near)) }); err != nil {
		t.Fatal(err)
	}
	if err := echo(t, "2001:db8:2::1"); err != nil { // a service of the router
		t.Fatal(err)
	}
	return k, host
}

// echo serves TCP on port 7 until the test ends.
func echo(t *testing.T, address string) error {
	l, err := net.Listen("tcp", net.JoinHostPort(address, "7"))
	if err != nil {
		return err
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	return nil
}

// connect opens a TCP connection from a source address of host.
func connect(host *netlab.NS, source, to string) (c net.Conn, err error) {
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	err = host.Do(func() error { c, err = d.Dial("tcp", net.JoinHostPort(to, "7")); return err })
	return c, err
}

// works reports what happens to a byte there and back.
func works(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// icmpError sends a UDP datagram and returns type and code of the ICMPv6 error that comes back.
func icmpError(host *netlab.NS, source string) (text string, err error) {
	err = host.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet6{Addr: netip.MustParseAddr(source).As16()}); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
		if err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet6{Addr: netip.MustParseAddr(far).As16(), Port: 9}); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, 10000); n != 1 {
			return fmt.Errorf("no error came back (%v)", err)
		}
		control := make([]byte, 256)
		_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 16), control, unix.MSG_ERRQUEUE)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		messages, err := unix.ParseSocketControlMessage(control[:n])
		if err != nil {
			return fmt.Errorf("parse: %w", err)
		}
		if len(messages) == 0 || len(messages[0].Data) < 16 {
			return fmt.Errorf("%d control messages", len(messages))
		}
		text = fmt.Sprintf("type %d code %d", messages[0].Data[5], messages[0].Data[6]) // struct sock_extended_err
		return nil
	})
	return text, err
}

// Hosts that use a dead source hear so at once, and nothing else is touched.
func TestDeadSources(t *testing.T) {
	const dead, alive = "2001:db8:1::2", "2001:db8:2::2"
	k, host := site(t)
	if got, err := icmpError(host, dead); err != nil || got != "type 1 code 0" {
		t.Fatalf("without a table: %s %v", got, err)
	}
	ip(t, "-6 rule add pref 1002 from 2001:db8:1::/48 lookup main") // as long as the prefix was good
	old, err := connect(host, dead, far)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	other, err := connect(host, alive, far)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, c := range []net.Conn{old, other} {
		if err := works(c); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, k, kernel.State{}, tablesOf(deadSources("2001:db8:1::/48")))
	ip(t, "-6 rule del pref 1002")
	if err := works(old); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("an old connection: %v", err)
	}
	if err := works(other); err != nil {
		t.Errorf("another source: %v", err)
	}
	for range 2 { // the second time nobody knows his neighbours any more
		if c, err := connect(host, dead, far); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("a new connection: %v %v", c, err)
		}
		for _, to := range []string{"2001:db8:2::1", near} { // the router itself; another LAN
			if c, err := connect(host, dead, to); err != nil {
				t.Errorf("to %s: %v", to, err)
			} else {
				c.Close()
			}
		}
		host.IP("-6 neighbour flush dev v1")
		ip(t, "-6 neighbour flush dev v0")
	}
	// The limit of one ICMPv6 error per second and host is the kernel's; the errors before must not use it up.
	netlab.Eventually(t, 10*time.Second, "ICMPv6 unreachable, policy", func() (bool, string) {
		got, err := icmpError(host, dead)
		return got == "type 1 code 5", fmt.Sprint(got, err)
	})
	if c, err := connect(host, alive, far); err != nil {
		t.Errorf("a new connection of another source: %v", err)
	} else {
		c.Close()
	}
}

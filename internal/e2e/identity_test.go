package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"uplinkd/internal/netlab"
	"uplinkd/pd"
)

// line is a point-to-point link without MAC addresses, such as PPP makes: a tun device on either side, and this test in
// between. The provider's stays; the router's comes and goes with every call.
type line struct {
	s        *site
	provider *os.File
	router   *os.File // nil while nobody has called

	mu sync.Mutex // guards router for the goroutine that carries packets to it
}

// layLine replaces the veth between provider and router.
func (s *site) layLine() *line {
	s.t.Helper()
	s.router.IP("link delete wan0")
	l := &line{s: s}
	l.provider = l.device(s.isp, "up0", gatewayLL)
	s.isp.IP("-6 address add 2001:db8:1:1::1/64 dev up0 nodad")
	go carry(l.provider, func(b []byte) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.router != nil {
			_, _ = l.router.Write(b) // a packet that is lost, as on any line
		}
	})
	return l
}

// device makes a tun device that is up. Its link-local address is given by hand, since the other side's routes need it;
// PPP negotiates one.
func (l *line) device(ns *netlab.NS, name, linkLocal string) *os.File {
	l.s.t.Helper()
	var f *os.File
	err := ns.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("make tun device %s: %w", name, err)
		}
		f = os.NewFile(uintptr(fd), name)
		return nil
	})
	if err != nil {
		l.s.t.Fatal(err)
	}
	l.s.t.Cleanup(func() { _ = f.Close() }) // a second time, maybe
	l.up(ns, name, linkLocal)
	return f
}

func (l *line) up(ns *netlab.NS, name, linkLocal string) {
	l.s.t.Helper()
	ns.Sysctl("net/ipv6/conf/"+name+"/addr_gen_mode", "1") // none
	ns.IP("link set %s up", name)
	ns.IP("-6 address add %s/64 dev %s nodad", linkLocal, name)
}

// call makes the router's device.
func (l *line) call(name string) {
	l.s.t.Helper()
	f := l.device(l.s.router, name, routerLL)
	l.mu.Lock()
	l.router = f
	l.mu.Unlock()
	go carry(f, func(b []byte) { _, _ = l.provider.Write(b) })
}

// hangUp takes the router's device away.
func (l *line) hangUp() {
	l.s.t.Helper()
	l.mu.Lock()
	f := l.router
	l.router = nil
	l.mu.Unlock()
	if err := f.Close(); err != nil {
		l.s.t.Fatal(err)
	}
}

// carry hands on what a device sends, as long as it is there.
func carry(from *os.File, to func([]byte)) {
	buf := make([]byte, 65536)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		to(buf[:n])
	}
}

// TestIdentityWithoutMAC has an uplink without a MAC address, from which DUIDs and IAIDs are often made. The provider
// must see the same client, whatever happens: a restart, another call, another name of the interface.
func TestIdentityWithoutMAC(t *testing.T) {
	t.Parallel()
	netlab.NeedFile(t, "/dev/net/tun")
	s := newSite(t, false)
	l := s.layLine()
	l.call("wan0")
	v := s.simulate(forever)
	s.configure(prompt)
	s.start()
	s.awaitHealthy()
	s.hostAddress(pool, "preferred", preferred)
	s.reach()
	_, delegations := s.awaitHeld(0, 1)
	s.holds(onLAN(nil, delegations...))
	before := s.kernelText()

	rebinds := 0
	verified := func(what string) {
		t.Helper()
		rebinds++
		s.awaitSeen(v, pd.Rebind, rebinds)
		s.eventually("the lease to be confirmed after "+what, func() (bool, string) {
			c := s.uplink().Client
			return c.State == "bound", c.State
		})
		if _, now := s.held(); !slices.Equal(now, delegations) {
			t.Errorf("after %s the router holds %v, it held %v", what, now, delegations)
		}
		v.oneClient(t, what)
	}

	s.end(syscall.SIGKILL)
	s.start()
	verified("a restart")
	s.asBefore(before, "a restart")

	l.hangUp()
	s.missing("wan0")
	l.call("wan0")
	s.route(pool)
	verified("another call")
	s.asBefore(before, "another call")

	// The name changes with the config, before the daemon has seen either.
	l.rename("wan0", "ppp7")
	s.route(pool)
	s.configure(strings.ReplaceAll(prompt, "wan0", "ppp7"))
	s.hangup()
	verified("another name")
	s.nothingOn("wan0")
	s.reach()

	s.end(syscall.SIGTERM)
	l.rename("ppp7", "wan0")
	s.configure(prompt)
	s.start()
	verified("the old name, and a restart")
	s.asBefore(before, "the old name")
	if seen := v.Counts().Seen; seen[pd.Solicit] != 1 || seen[pd.Release] != 0 || seen[pd.Rebind] != rebinds {
		t.Errorf("the client has sent %v", seen)
	}
}

// rename renames the router's device, which has to be down for that and loses its address.
func (l *line) rename(from, to string) {
	l.s.t.Helper()
	l.s.router.IP("link set %s down", from)
	l.s.router.IP("link set %s name %s", from, to)
	l.up(l.s.router, to, routerLL)
}

// oneClient checks that all messages so far came from one client, about the same IAs.
func (v *simulated) oneClient(t *testing.T, when string) {
	t.Helper()
	identities := map[string]bool{}
	for _, e := range v.Exchanges() {
		id := e.Request.ClientID.String()
		for _, ia := range e.Request.IAPDs {
			id += fmt.Sprintf(" IA_PD %d", ia.IAID)
		}
		for _, ia := range e.Request.IANAs {
			id += fmt.Sprintf(" IA_NA %d", ia.IAID)
		}
		identities[id] = true
	}
	if len(identities) != 1 {
		t.Errorf("after %s the provider knows %d clients: %v", when, len(identities), identities)
	}
}

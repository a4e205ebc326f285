package isp_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/internal/netlab"
	"uplinkd/pd"
	"uplinkd/pd/wire"
)

func TestMain(m *testing.M) { netlab.TestMain(m) }

const (
	clientID pd.DUID = "\x00\x03\x00\x01\x02\x00\x00\x00\x01\x01"
	patience         = 15 * time.Second
)

// link is a provider on up0 and a raw DHCPv6 client on wan0.
type link struct {
	t        *testing.T
	provider *isp.Provider
	isp, rtr *netlab.NS
	conn     *net.UDPConn
	stop     func() // ends the provider's Run
}

func setup(t *testing.T, cfg isp.Config) *link {
	t.Helper()
	lab := netlab.New(t)
	l := &link{t: t, isp: lab.NS("isp"), rtr: lab.NS("rtr")}
	for _, ns := range []*netlab.NS{l.isp, l.rtr} {
		ns.Sysctl("net.ipv6.conf.all.accept_dad", "0")
		ns.Sysctl("net.ipv6.conf.default.accept_dad", "0")
		ns.Sysctl("net.ipv6.conf.all.forwarding", "1")
		ns.Sysctl("net.ipv6.conf.default.accept_ra", "2")
	}
	lab.Veth(l.isp, "up0", l.rtr, "wan0", "02:00:00:00:01:02", "02:00:00:00:01:01")
	cfg.Interface = "up0"
	cfg.Pool = netip.MustParsePrefix("2001:db8:1100::/40")
	cfg.Route = func(prefix netip.Prefix, via netip.Addr, add bool) error {
		verb := "del"
		if add {
			verb = "replace"
		}
		line := fmt.Sprintf("-6 route %s %s via %s dev up0", verb, prefix, via)
		return l.isp.Command(context.Background(), "ip", strings.Fields(line)...).Run()
	}
	var err error
	if l.provider, err = isp.New(cfg); err != nil {
		t.Fatal(err)
	}
	l.start()
	l.dial()
	return l
}

// start opens and runs the provider until restart or the end of the test.
func (l *link) start() {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	wait, enough := context.WithTimeout(ctx, patience)
	defer enough()
	if err := l.isp.Do(func() error { return l.provider.Open(wait) }); err != nil {
		l.t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- l.provider.Run(ctx) }()
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("Run: %v", err)
		}
	})
	l.t.Cleanup(l.stop)
}

func (l *link) restart() {
	l.t.Helper()
	l.stop()
	l.start()
}

func (l *link) dial() {
	l.t.Helper()
	l.rtr.LinkLocal("wan0")
	err := l.rtr.Do(func() error {
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
			return c.Control(func(fd uintptr) { err = syscall.BindToDevice(int(fd), "wan0") })
		}}
		pc, err := lc.ListenPacket(l.t.Context(), "udp6", "[::]:546")
		if err == nil {
			l.conn = pc.(*net.UDPConn)
		}
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { l.conn.Close() })
}

func (l *link) send(m pd.Message) {
	l.t.Helper()
	b, err := wire.Encode(m)
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.conn.WriteToUDPAddrPort(b, netip.MustParseAddrPort("[ff02::1:2]:547")); err != nil {
		l.t.Fatal(err)
	}
}

func (l *link) receive() []byte {
	l.t.Helper()
	_ = l.conn.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 65536)
	n, err := l.conn.Read(buf)
	if err != nil {
		l.t.Fatal(err)
	}
	return buf[:n]
}

// exchange sends m and returns the reply.
func (l *link) exchange(m pd.Message) pd.Message {
	l.t.Helper()
	l.send(m)
	reply, err := wire.Decode(l.receive())
	if err != nil {
		l.t.Fatal(err)
	}
	if reply.XID != m.XID || len(reply.Faults) > 0 {
		l.t.Fatalf("reply to %+v: %+v", m, reply)
	}
	return reply
}

var solicit = pd.Message{Type: pd.Solicit, XID: 1, ClientID: clientID, IAPDs: []pd.IAPD{{IAID: 1}}}

// bind does the four-message exchange and returns a Renew for what it got.
func (l *link) bind() (renew pd.Message, prefix netip.Prefix) {
	l.t.Helper()
	advertise := l.exchange(solicit)
	request := solicit
	request.Type, request.XID, request.ServerID = pd.Request, 2, advertise.ServerID
	reply := l.exchange(request)
	if reply.Type != pd.Reply || len(reply.IAPDs) != 1 || len(reply.IAPDs[0].Prefixes) != 1 {
		l.t.Fatalf("reply to Request: %+v", reply)
	}
	renew = request
	renew.Type, renew.XID, renew.IAPDs = pd.Renew, 3, []pd.IAPD{{IAID: 1, Prefixes: reply.IAPDs[0].Prefixes}}
	return renew, reply.IAPDs[0].Prefixes[0].Prefix
}

func (l *link) wantRoutes(want ...netip.Prefix) {
	l.t.Helper()
	netlab.Eventually(l.t, patience, fmt.Sprintf("routes to %v", want), func() (bool, string) {
		routes := l.isp.IP("-6 route show via fe80::ff:fe00:101")
		ok := strings.Count(routes, "\n") == len(want)
		for _, p := range want {
			ok = ok && strings.Contains(routes, p.String()+" ")
		}
		return ok, routes
	})
}

func TestDelegation(t *testing.T) {
	l := setup(t, isp.Config{DNS: []netip.Addr{netip.MustParseAddr("2001:db8:f::53")}})
	renew, p := l.bind()
	l.wantRoutes(p)
	if got := l.exchange(renew).IAPDs[0].Prefixes; len(got) != 1 || got[0].Prefix != p {
		t.Errorf("renewed: %v, want %s", got, p)
	}
	if b := l.provider.Bindings(); len(b) != 1 || b[0].Prefix != p || b[0].Via.String() != "fe80::ff:fe00:101" {
		t.Errorf("bindings: %v", b)
	}
	release := renew
	release.Type = pd.Release
	l.exchange(release)
	l.wantRoutes()

	netlab.Eventually(t, patience, "the counters", func() (bool, string) {
		c := l.provider.Counts()
		ok := c.Seen[pd.Solicit] == 1 && c.Seen[pd.Request] == 1 && c.Seen[pd.Renew] == 1 && c.Seen[pd.Release] == 1 &&
			c.Sent[pd.Advertise] == 1 && c.Sent[pd.Reply] == 3
		return ok, fmt.Sprint(c)
	})
	var types []pd.MessageType
	for _, e := range l.provider.Exchanges() {
		types = append(types, e.Request.Type, e.Reply.Type)
	}
	if got := fmt.Sprint(types); got != "[Solicit Advertise Request Reply Renew Reply Release Reply]" {
		t.Errorf("exchanges: %s", got)
	}
}

func TestExpiryDropsTheRoute(t *testing.T) {
	l := setup(t, isp.Config{Preferred: 1, Valid: 1})
	_, p := l.bind()
	l.wantRoutes()
	if b := l.provider.Bindings(); len(b) != 0 {
		t.Errorf("bindings: %v after the valid lifetime of %s", b, p)
	}
}

func TestRenumber(t *testing.T) {
	l := setup(t, isp.Config{})
	renew, p := l.bind()
	if err := l.provider.Renumber(netip.MustParsePrefix("2001:db8:1200::/40"), 0); err != nil {
		t.Fatal(err)
	}
	l.wantRoutes()
	got := l.exchange(renew).IAPDs[0].Prefixes
	if len(got) != 2 || got[1].Prefix != p || got[1].Valid != 0 || got[0].Valid != 4000 {
		t.Fatalf("renewed: %v, want a new prefix and %s with lifetimes 0", got, p)
	}
	l.wantRoutes(got[0].Prefix)

	l.provider.SetLength(48)
	if again := l.exchange(renew).IAPDs[0].Prefixes; again[0].Prefix != got[0].Prefix {
		t.Errorf("renewed: %v, want %s until the next renumbering", again, got[0].Prefix)
	}
	if err := l.provider.Renumber(netip.MustParsePrefix("2001:db8:1300::/40"), 0); err != nil {
		t.Fatal(err)
	}
	if again := l.exchange(renew).IAPDs[0].Prefixes; again[0].Prefix.Bits() != 48 {
		t.Errorf("renewed: %v, want a /48", again)
	}
	if l.provider.SetLength(39); l.provider.Renumber(netip.MustParsePrefix("2001:db8:1400::/40"), 0) == nil {
		t.Error("delegates a /39 from a /40")
	}
}

func TestForget(t *testing.T) {
	l := setup(t, isp.Config{})
	renew, _ := l.bind()
	l.provider.Forget()
	l.wantRoutes()
	if got := l.exchange(renew).IAPDs[0]; got.Status.Code != pd.NoBinding || len(got.Prefixes) != 0 {
		t.Errorf("renewed: %+v, want NoBinding", got)
	}
}

// TestSilence wants the first answer to be that to the message after the silence.
func TestSilence(t *testing.T) {
	l := setup(t, isp.Config{})
	l.provider.Silence(true)
	l.send(solicit)
	netlab.Eventually(t, patience, "the Solicit", func() (bool, string) {
		return l.provider.Counts().Seen[pd.Solicit] == 1, fmt.Sprint(l.provider.Counts())
	})
	l.provider.Silence(false)
	later := solicit
	later.XID = 99
	l.exchange(later)
}

func TestIntercept(t *testing.T) {
	l := setup(t, isp.Config{})
	l.provider.Intercept(func(req pd.Message, reply *pd.Message) bool {
		reply.Status = pd.Status{Code: pd.UnspecFail, Text: "go away"}
		return req.XID != 1
	})
	l.send(solicit) // is not answered
	second := solicit
	second.XID = 2
	if got := l.exchange(second); got.Status.Code != pd.UnspecFail || got.Status.Text != "go away" {
		t.Errorf("status %+v", got.Status)
	}
	l.provider.Intercept(nil)
	l.provider.InterceptRaw(func(_ pd.Message, reply []byte) [][]byte { return [][]byte{{7, 0}, reply[:4]} })
	l.send(solicit)
	if got := l.receive(); !bytes.Equal(got, []byte{7, 0}) {
		t.Errorf("first datagram: %x", got)
	}
	if got := l.receive(); !bytes.Equal(got, []byte{2, 0, 0, 1}) {
		t.Errorf("second datagram: %x", got)
	}
}

func TestMalformedIsCounted(t *testing.T) {
	l := setup(t, isp.Config{})
	if _, err := l.conn.WriteToUDPAddrPort([]byte{1, 2}, netip.MustParseAddrPort("[ff02::1:2]:547")); err != nil {
		t.Fatal(err)
	}
	netlab.Eventually(t, patience, "the counter", func() (bool, string) {
		return l.provider.Counts().Malformed == 1, fmt.Sprint(l.provider.Counts())
	})
}

// TestRestart wants bindings to outlive the sockets.
func TestRestart(t *testing.T) {
	l := setup(t, isp.Config{})
	renew, p := l.bind()
	l.restart()
	if got := l.exchange(renew).IAPDs[0]; len(got.Prefixes) != 1 || got.Prefixes[0].Prefix != p {
		t.Errorf("renewed: %+v, want %s", got, p)
	}
}

func TestOpenAndRunInOrder(t *testing.T) {
	l := setup(t, isp.Config{})
	if err := l.isp.Do(func() error { return l.provider.Open(t.Context()) }); err == nil {
		t.Error("a second Open succeeds")
	}
	p, err := isp.New(isp.Config{Interface: "up0", Pool: netip.MustParsePrefix("2001:db8:1100::/40")})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(t.Context()); err == nil {
		t.Error("Run without Open succeeds")
	}
}

// TestRealClient lets a client that is not ours judge the provider.
func TestRealClient(t *testing.T) {
	netlab.NeedProgram(t, "dhclient", "isc-dhcp-client")
	l := setup(t, isp.Config{})
	_ = l.conn.Close() // its port is wanted
	dir := t.TempDir()
	leases := filepath.Join(dir, "leases")
	for _, file := range []string{leases, filepath.Join(dir, "conf")} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.rtr.Start(l.rtr.Command(t.Context(), "dhclient", "-6", "-P", "-d", "-cf", filepath.Join(dir, "conf"), "-lf", leases,
		"-pf", filepath.Join(dir, "pid"), "-sf", "/bin/true", "wan0"))
	netlab.Eventually(t, patience, "a lease", func() (bool, string) {
		text, err := os.ReadFile(leases)
		b := l.provider.Bindings()
		return err == nil && len(b) == 1 && strings.Contains(string(text), "iaprefix "+b[0].Prefix.String()), string(text)
	})
}

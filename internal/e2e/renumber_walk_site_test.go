package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/internal/netlab"
)

type walkUplink struct {
	name   string
	dev    string
	ns     *netlab.NS
	v      *isp.Provider
	number int       // delegates from 2001:db8:NN00::/40
	heard  time.Time // up to here its exchanges are known
}

// walkPools are how many pools each provider has: it returns to prefixes that are not forgotten yet.
const walkPools = 16

// pool is where the current prefix is from. Prefixes of different lengths do not overlap, so that a model of rows by length
// is enough.
func (u *walkUplink) pool(bits int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::/42", u.number<<8+slices.Index(walkLengths, bits)<<6))
}

// walkSite has all kinds of downstreams whose rows follow from delegations; they fill a /60.
func walkSite() string {
	var b strings.Builder
	b.WriteString("ula = \"auto\"\n")
	for i := range walkUplinks {
		fmt.Fprintf(&b, "[uplink.u%d]\ninterface = \"wan%d\"\ndhcpv6 = { delay = false, address = \"never\", report_after = \"2s\" }\n", i, i)
	}
	_, lans, _ := strings.Cut(renumbered, "[downstream.lan]")
	return b.String() + "[downstream.lan]" + lans + `
[downstream.hosting]
kind = "service"
length = 80

[downstream.routed]
interface = "lan1"
kind = "transit"
via = "fe80::2"
subnet = 1
length = 62

[downstream.inner]
interface = "lan2"
kind = "transit"
length = 61
`
}

// walkLease is renewed in every round by what happens in it, and never for the reason that time has passed. Within
// its lifetime everything that a provider has forgotten without a word is over.
var walkLease = offer{preferred: 25, valid: 30, t1: 1000, t2: 1000}

func newWalk(t *testing.T) *walk {
	t.Helper()
	netlab.NeedProgram(t, "nft", "nftables")
	w := &walk{walkRouter: newWalkRouter(newSite(t, false), walkUplinks), random: seeded(t), done: map[string]int{}}
	w.isp.IP("link del up0")
	guest := w.lab.NS("guest")
	w.lab.Veth(w.router, "lan1", guest, "eth0")
	w.router.LinkLocal("lan1")
	for i := range walkUplinks {
		u := &walkUplink{name: fmt.Sprintf("u%d", i), dev: fmt.Sprintf("wan%d", i), ns: w.lab.NS(fmt.Sprintf("isp%d", i)), number: walkPools * (i + 1)}
		u.ns.Sysctl("net.ipv6.conf.default.accept_dad", "0")
		mac := func(end int) string { return fmt.Sprintf("02:00:00:01:%02x:%02x", i, end) }
		w.lab.Veth(u.ns, "up0", w.router, u.dev, mac(1), mac(2))
		w.router.LinkLocal(u.dev)
		u.ns.LinkLocal("up0")
		cfg := walkLease.simulated()
		cfg.Interface, cfg.Pool, cfg.Length, cfg.RapidCommit, cfg.RA.Interval = "up0", u.pool(walkLengths[0]), walkLengths[0], true, 4*time.Second
		p, err := isp.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		u.v = p
		serve(t, u.ns, p)
		w.uplinks = append(w.uplinks, u)
	}
	w.plugInner()
	w.configure(walkSite())
	for _, bits := range walkLengths {
		w.learnLength(bits)
	}
	w.start()
	w.ula = w.awaitHealthy().ULA
	w.startInner()
	return w
}

// learnLength has a new daemon number the site from delegations of a length, for the model.
func (w *walk) learnLength(bits int) {
	w.t.Helper()
	for _, u := range w.uplinks {
		u.v.SetLength(bits)
		if err := u.v.Abandon(u.pool(bits)); err != nil {
			w.t.Fatal(err)
		}
	}
	w.start()
	w.awaitHealthy()
	w.learn(w.settled())
	w.end(syscall.SIGTERM)
	w.forgetful("duid.json", "ula.json")
}

// forgetful takes everything that the daemon has written from the kernel, and from the disk but for some files.
func (w *walk) forgetful(but ...string) {
	w.t.Helper()
	if _, errs, status := w.run("clean"); status != 0 {
		w.t.Fatalf("clean: %s", errs)
	}
	dir := filepath.Join(w.dir, "state")
	files, err := os.ReadDir(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range files {
		if slices.Contains(but, f.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, f.Name())); err != nil {
			w.t.Fatal(err)
		}
	}
}

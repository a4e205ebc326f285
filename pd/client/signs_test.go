package client

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/pd"
	"uplinkd/pd/trace"
	"uplinkd/pd/wire"
)

func TestSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting)
		l.Suspect("no link yet")
		l.SetLink(wan)
		time.Sleep(time.Minute)
		for range 1000 { // must neither block nor storm the server
			l.Suspect("router changed")
		}
		time.Sleep(5 * time.Second)
		wantMessages(t, l.conn(), "Solicit", "Request", "Rebind")
		if got := l.latest(); got.State != "bound" || got.Cause != pd.CauseRebound && got.Cause != "" {
			t.Errorf("%+v", got)
		}
	})
}

// TestLinkLocalChanges has another address take the place of the one before, with no time without any.
func TestLinkLocalChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting)
		l.SetLink(wan)
		time.Sleep(time.Minute)
		other := wan
		other.LinkLocal = netip.MustParseAddr("fe80::9")
		for range 2 { // the second time it is the same
			l.SetLink(other)
			time.Sleep(time.Minute)
		}
		wantMessages(t, l.conn(), "Solicit", "Request", "Rebind")
		if n := len(l.opened); n != 1 {
			t.Errorf("%d sockets opened, want 1", n)
		}
		if want := "link-local address changed from fe80::1 to fe80::9"; strings.Count(l.log.String(), want) != 1 {
			t.Errorf("log:\n%s", &l.log)
		}
	})
}

func TestConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting, func(c *Config) { c.Machine.NA = &pd.NAConfig{IAID: 8} })
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		if got := l.latest(); len(got.Lease.Addresses) != 1 || got.Lease.Addresses[0].Address != assigned {
			t.Fatalf("%+v", got)
		}
		for range 2 * maxConflicts { // must not block
			l.Conflict(netip.MustParseAddr("2001:db8::bad"))
		}
		synctest.Wait()
		l.Conflict(assigned)
		time.Sleep(time.Second)
		i := slices.IndexFunc(l.all(), func(u Update) bool { return u.Cause == pd.CauseDeclined })
		if i < 0 || len(l.all()[i].Lease.Addresses) != 0 || !l.all()[i].hasPrefixes() {
			t.Errorf("update %d of %+v", i, l.all())
		}
		if !slices.Contains(l.conn().messages(), "Decline") {
			t.Errorf("sent %q", l.conn().messages())
		}
	})
}

// TestMulticast: what was sent to a group reaches the trace, not the machine (RFC 9915 §16).
func TestMulticast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ring trace.Ring
		l := start(t, silent, func(c *Config) { c.Trace = ring.Record })
		l.SetLink(wan)
		time.Sleep(100 * time.Millisecond)
		c := l.conn()
		answer := granting(c.sent[0])[0]
		answer.Preference = 255
		b, err := wire.Encode(answer)
		if err != nil {
			t.Fatal(err)
		}
		from := netip.MustParseAddrPort("[fe80::2]:547")
		c.packets <- packet{b, time.Now(), from, netip.MustParseAddr("ff02::1")}
		synctest.Wait()
		wantMessages(t, c, "Solicit")
		if p := ring.Packets(); len(p) != 2 || p[1].Local.String() != "[ff02::1]:546" {
			t.Errorf("%v", p)
		}
		if !strings.Contains(l.log.String(), `from=[fe80::2]:547 err="sent to the group ff02::1"`) {
			t.Errorf("log:\n%s", &l.log)
		}
		c.packets <- packet{b, time.Now(), from, wan.LinkLocal}
		synctest.Wait()
		wantMessages(t, c, "Solicit", "Request")
	})
}

func TestTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ring trace.Ring
		l := start(t, granting, func(c *Config) { c.Trace = ring.Record })
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		l.conn().change(func(c *fakeConn) { c.sendErr = fmt.Errorf("no route") })
		l.Renew()
		l.conn().in <- []byte("\xff\x1b") // answers nothing: neither decoded nor recorded
		synctest.Wait()
		var got []string
		for _, p := range ring.Packets() {
			m, err := wire.Decode(p.Data)
			got = append(got, fmt.Sprint(p.Sent, " ", p.Local, " ", p.Remote, " ", m.Type, " ", err != nil))
			if p.At.IsZero() {
				t.Errorf("no time: %v", p)
			}
		}
		want := []string{
			"true [fe80::1]:546 [ff02::1:2]:547 Solicit false",
			"false [fe80::1]:546 [fe80::2]:547 Advertise false",
			"true [fe80::1]:546 [ff02::1:2]:547 Request false",
			"false [fe80::1]:546 [fe80::2]:547 Reply false", // what was not sent is not there
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// scripted is a fake: a machine that answers InputSuspect with these outputs.
type scripted struct {
	outputs []pd.Output
	state   string
}

func (m *scripted) Step(_ time.Time, in pd.Input) []pd.Output {
	if in.Kind == pd.InputSuspect {
		return m.outputs
	}
	return nil
}
func (m *scripted) Deadline() (time.Time, bool) { return time.Time{}, false }
func (m *scripted) State() string               { return m.state }
func (m *scripted) Lease() pd.Lease             { return pd.Lease{} }
func (m *scripted) Sent() pd.Window             { return pd.Window{} }
func (m *scripted) Awaits() ([]uint32, bool)    { return nil, false }

// TestNote has why a lease lacks what was asked for: until it has it, or has nothing at all.
func TestNote(t *testing.T) {
	prefix := pd.Lease{Prefixes: []pd.LeasedPrefix{{IAID: 7, Prefix: delegated}}}
	both := pd.Lease{Prefixes: []pd.LeasedPrefix{{IAID: 7, Prefix: delegated}, {IAID: 9, Prefix: delegated}}, Addresses: []pd.LeasedAddress{{IAID: 8, Address: assigned}}}
	note := func(text string) pd.Output { return pd.Output{Kind: pd.OutputNote, Text: text} }
	lease := func(cause pd.Cause, l pd.Lease) pd.Output {
		return pd.Output{Kind: pd.OutputLease, Cause: cause, Lease: l}
	}
	synctest.Test(t, func(t *testing.T) {
		m := &scripted{}
		l := startWith(t, silent, func(client *Client) {
			client.newMachine = func(pd.Lease, pd.Window, time.Time, *rand.Rand) machine { return m }
		}, func(cfg *Config) {
			cfg.Machine = pd.Config{PDs: []pd.PDConfig{{IAID: 7}, {IAID: 9}}, NA: &pd.NAConfig{IAID: 8}}
		})
		for _, step := range []struct {
			outputs []pd.Output
			want    string
		}{
			{[]pd.Output{note("Request: NoAddrsAvail"), lease(pd.CauseBound, prefix)}, "Request: NoAddrsAvail"},
			{[]pd.Output{note("Reconfigure: dropped")}, "Request: NoAddrsAvail"},
			{[]pd.Output{lease(pd.CauseRenewed, prefix)}, "Request: NoAddrsAvail"}, // as before: the machine says it once
			{[]pd.Output{note("Renew: NoPrefixAvail"), lease(pd.CauseRenewed, prefix)}, "Renew: NoPrefixAvail"},
			{[]pd.Output{lease(pd.CauseRenewed, both)}, ""},
			{[]pd.Output{note("Renew: NoPrefixAvail"), lease(pd.CauseRenewed, prefix)}, "Renew: NoPrefixAvail"},
			{[]pd.Output{lease(pd.CauseExpired, pd.Lease{})}, ""},
			{[]pd.Output{note("Renew: NoPrefixAvail"), lease(pd.CauseBound, prefix)}, "Renew: NoPrefixAvail"},
		} {
			m.outputs = step.outputs
			time.Sleep(time.Minute) // there is a limit for lines
			l.Suspect("test")
			synctest.Wait()
			if got := l.latest().Note; got != step.want {
				t.Errorf("after %+v: note %q, want %q", step.outputs, got, step.want)
			}
		}
		if n := strings.Count(l.log.String(), "DHCPv6 note"); n != 4 { // the third text once for each lease
			t.Errorf("%d notes in the log:\n%s", n, &l.log)
		}
	})
}

// TestReported has what an output of the machine says about whether the uplink has been heard of, and whether all is well.
func TestReported(t *testing.T) {
	prefix := pd.Lease{Prefixes: []pd.LeasedPrefix{{IAID: 7, Prefix: delegated}}}
	address := pd.Lease{Addresses: []pd.LeasedAddress{{IAID: 8, Address: assigned}}}
	delegation := pd.Config{PDs: []pd.PDConfig{{IAID: 7}}, NA: &pd.NAConfig{IAID: 8}, Stateless: true}
	for _, c := range []struct {
		name     string
		config   pd.Config
		cause    pd.Cause
		lease    pd.Lease
		reported bool
		well     bool
	}{
		{"prefix", delegation, pd.CauseBound, prefix, true, true},
		{"address but no prefix", delegation, pd.CauseBound, address, true, false},
		{"information but no prefix", delegation, pd.CauseInformed, pd.Lease{}, true, false},
		{"withdrawn", delegation, pd.CauseRenewed, pd.Lease{}, true, false},
		{"expired", delegation, pd.CauseExpired, pd.Lease{}, false, false},
		{"noted", delegation, pd.CauseNoted, prefix, false, false},
		{"released", delegation, pd.CauseReleased, pd.Lease{}, true, true},
		{"address alone is wanted", pd.Config{NA: &pd.NAConfig{IAID: 8}}, pd.CauseBound, address, true, true},
		{"address alone is wanted, and is gone", pd.Config{NA: &pd.NAConfig{IAID: 8}}, pd.CauseDeclined, pd.Lease{}, true, false},
		{"information alone is wanted", pd.Config{Stateless: true}, pd.CauseInformed, pd.Lease{}, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &scripted{outputs: []pd.Output{{Kind: pd.OutputLease, Cause: c.cause, Lease: c.lease}}}
				l := startWith(t, silent, func(client *Client) {
					client.newMachine = func(pd.Lease, pd.Window, time.Time, *rand.Rand) machine { return m }
				}, func(cfg *Config) { cfg.Machine = c.config })
				l.Suspect("test")
				synctest.Wait()
				if got := l.latest(); got.Reported != c.reported || got.Cause != "" && got.Cause != c.cause {
					t.Errorf("%+v", got)
				}
				m.outputs = append([]pd.Output{{Kind: pd.OutputFailed, Text: "refused"}, {Kind: pd.OutputNote, Text: "partial"}}, m.outputs...)
				l.Suspect("test")
				synctest.Wait()
				if got := l.latest(); got.Failure == "" != c.well {
					t.Errorf("after a failure: %+v", got)
				}
				if !strings.Contains(l.log.String(), "note=partial") {
					t.Errorf("log:\n%s", &l.log)
				}
			})
		})
	}
}

// TestReportedAfterNoBinding: while a server that has no binding is asked for one, nobody may take the stored lease for good.
func TestReportedAfterNoBinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &scripted{outputs: []pd.Output{{Kind: pd.OutputFailed, Text: "refused: NoBinding"}}}
		l := startWith(t, silent, func(client *Client) {
			client.newMachine = func(pd.Lease, pd.Window, time.Time, *rand.Rand) machine { return m }
		}, func(cfg *Config) { cfg.Machine = pd.Config{PDs: []pd.PDConfig{{IAID: 7}}} })
		for _, c := range []struct {
			state    string
			reported bool
		}{{pd.StateRequesting, false}, {"soliciting", true}} {
			synctest.Wait() // the client looks at the machine
			m.state = c.state
			l.Suspect("test")
			synctest.Wait()
			if got := l.latest(); got.Reported != c.reported || got.Failure == "" {
				t.Errorf("%s: %+v", c.state, got)
			}
		}
	})
}

// TestFailureOfBindingsFirst: that nobody answers an Information-request is no news beside why there is no prefix.
func TestFailureOfBindingsFirst(t *testing.T) {
	solicit := pd.Output{Kind: pd.OutputFailed, About: pd.Solicit, Text: "Solicit: in vain"}
	again := pd.Output{Kind: pd.OutputFailed, About: pd.Solicit, Text: "Solicit: in vain again"}
	inform := pd.Output{Kind: pd.OutputFailed, About: pd.InformationRequest, Text: "Information-request: in vain"}
	for name, c := range map[string]struct {
		outputs []pd.Output
		config  pd.Config
		want    string
	}{
		"information last":          {[]pd.Output{solicit, inform}, pd.Config{PDs: []pd.PDConfig{{IAID: 7}}}, solicit.Text},
		"information first":         {[]pd.Output{inform, solicit}, pd.Config{PDs: []pd.PDConfig{{IAID: 7}}}, solicit.Text},
		"information alone":         {[]pd.Output{inform}, pd.Config{PDs: []pd.PDConfig{{IAID: 7}}}, inform.Text},
		"the newest of bindings":    {[]pd.Output{solicit, inform, again}, pd.Config{NA: &pd.NAConfig{IAID: 8}}, again.Text},
		"no bindings are wanted":    {[]pd.Output{inform}, pd.Config{Stateless: true}, inform.Text},
		"information on both sides": {[]pd.Output{inform, solicit, inform}, pd.Config{PDs: []pd.PDConfig{{IAID: 7}}}, solicit.Text},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &scripted{outputs: c.outputs}
				l := startWith(t, silent, func(client *Client) {
					client.newMachine = func(pd.Lease, pd.Window, time.Time, *rand.Rand) machine { return m }
				}, func(cfg *Config) { cfg.Machine = c.config })
				l.Suspect("test")
				synctest.Wait()
				if got := l.latest(); got.Failure != c.want {
					t.Errorf("%q, want %q", got.Failure, c.want)
				}
			})
		})
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/netlab"
	"uplinkd/pd"
	"uplinkd/pd/trace"
	"uplinkd/pd/wire"
)

// reconfigureKey is what a server gave the client for Reconfigure messages (RFC 9915 §20.4).
const reconfigureKey = "SIXTEEN-OCTETS!!"

// talk records how an uplink gets a prefix: two messages of the client, two of the server, and one of somebody else.
func talk(t *testing.T) *trace.Ring {
	t.Helper()
	const client, server = pd.DUID("\x00\x03\x00\x01\x02\x00\x00\x00\x00\x02"), pd.DUID("\x00\x03\x00\x01\x02\x00\x00\x00\x00\x01")
	ia := pd.IAPD{IAID: 1, T1: 1800, T2: 2880, Prefixes: []pd.IAPrefix{
		{Prefix: netip.MustParsePrefix("2001:db8:100::/56"), Preferred: 3600, Valid: 7200}}}
	local, group := netip.MustParseAddrPort("[fe80::2%wan0]:546"), netip.MustParseAddrPort("[ff02::1:2]:547")
	at := time.Date(2026, 11, 22, 2, 0, 0, 12e6, time.Local) // what people see is local time: the same in every zone
	ring := new(trace.Ring)
	record := func(after time.Duration, remote netip.AddrPort, data []byte) {
		at = at.Add(after)
		ring.Record(trace.Packet{At: at, Sent: remote == group, Local: local, Remote: remote, Data: data})
	}
	say := func(after time.Duration, remote string, m pd.Message) {
		m.XID, m.ClientID = 0x51a2b3, client
		data, err := wire.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		record(after, netip.MustParseAddrPort(remote), data)
	}
	info := pd.Info{DNS: []netip.Addr{netip.MustParseAddr("2001:db8:ffff::53")}}
	key := &pd.Auth{Protocol: 3, Algorithm: 1, Replay: 1, Info: []byte("\x01" + reconfigureKey)}
	say(0, group.String(), pd.Message{Type: pd.Solicit, IAPDs: []pd.IAPD{{IAID: 1, Prefixes: []pd.IAPrefix{{HintLen: 56}}}},
		ReconfAccept: true, ORO: []uint16{pd.OptDNSServers, pd.OptSolMaxRT}})
	say(3*time.Millisecond, "[fe80::1%wan0]:547", pd.Message{Type: pd.Advertise, ServerID: server, IAPDs: []pd.IAPD{ia}, Info: info})
	record(2*time.Millisecond, netip.MustParseAddrPort("[fe80::bad%wan0]:4711"), []byte("\x07\x1b[2J"))
	say(995*time.Millisecond, group.String(), pd.Message{Type: pd.Request, ServerID: server, IAPDs: []pd.IAPD{ia}, ReconfAccept: true,
		ORO: []uint16{pd.OptDNSServers, pd.OptSolMaxRT}})
	say(4*time.Millisecond, "[fe80::1%wan0]:547", pd.Message{Type: pd.Reply, ServerID: server, IAPDs: []pd.IAPD{ia}, Info: info,
		ReconfAccept: true, Auth: key})
	return ring
}

func TestTrace(t *testing.T) {
	ring := talk(t)
	socket, _ := still{snapshot: scenes()["ok"].snapshot(t), ring: ring}.listen(t, nil)
	got := verbIn(t.Context(), "trace", "fiber", "--socket", socket)
	if got.status != exitOK || got.stderr != "" {
		t.Errorf("status %d, %s", got.status, got.stderr)
	}
	if strings.Contains(got.stdout, "\x1b") || strings.Contains(got.stdout, "SIXTEEN") {
		t.Errorf("a control character or a key: %q", got.stdout)
	}
	golden(t, "trace/fiber.txt", []byte(got.stdout))
	if only := verbIn(t.Context(), "trace", "--socket", socket); only != got {
		t.Errorf("without a name: %+v", only)
	}

	got = verbIn(t.Context(), "trace", "--json", "--socket", socket)
	lines := strings.Split(strings.TrimSuffix(got.stdout, "\n"), "\n")
	packets := ring.Packets()
	if got.status != exitOK || len(lines) != len(packets) {
		t.Fatalf("--json: status %d, %s%s", got.status, got.stdout, got.stderr)
	}
	for i, line := range lines {
		var doc struct {
			SchemaVersion int `json:"schema_version"`
			Seq           uint64
			Time          time.Time
			Sent          bool
			Local, Remote string
			Text, Data    string
		}
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		p := packets[i]
		if doc.SchemaVersion != 1 || doc.Seq != uint64(i+1) || !doc.Time.Equal(p.At) || doc.Sent != p.Sent || doc.Local != "[fe80::2%wan0]:546" ||
			doc.Remote != p.Remote.String() || doc.Text != p.Text() || doc.Data != base64.StdEncoding.EncodeToString(p.Data) {
			t.Errorf("message %d: %s", i, line)
		}
	}
}

func TestTraceFails(t *testing.T) {
	socket, _ := still{snapshot: scenes()["ok"].snapshot(t), ring: talk(t)}.listen(t, nil)
	kept := filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(kept, []byte("an older trace"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]outcome{
		"fibre":                        {exitFailed, "", "uplinkd: no uplink \"fibre\"; there is: fiber\n"},
		"fibre -f":                     {exitFailed, "", "uplinkd: no uplink \"fibre\"; there is: fiber\n"},
		"fibre -w " + kept:             {exitFailed, "", "uplinkd: no uplink \"fibre\"; there is: fiber\n"},
		"fibre -f -w " + kept:          {exitFailed, "", "uplinkd: no uplink \"fibre\"; there is: fiber\n"},
		"-w /nonexistent/fiber.pcapng": {exitFailed, "", "uplinkd: write the messages: open /nonexistent/fiber.pcapng: no such file or directory\n"},
		"--json -w " + kept:            {exitUsage, "", "uplinkd trace: -w writes pcapng and --json prints JSON: choose one\nsee: uplinkd trace --help\n"},
		"-w":                           {exitUsage, "", "uplinkd trace: an argument is missing behind -w\nsee: uplinkd trace --help\n"},
		"-x":                           {exitUsage, "", "uplinkd trace: there is no option -x\nsee: uplinkd trace --help\n"},
		"-f=often":                     {exitUsage, "", "uplinkd trace: invalid boolean value \"often\" for -f: parse error\nsee: uplinkd trace --help\n"},
	} {
		if got := verbIn(t.Context(), append([]string{"--socket", socket, "trace"}, strings.Fields(args)...)...); got != want {
			t.Errorf("trace %s:\n%+v\nwant\n%+v", args, got, want)
		}
	}
	if b, err := os.ReadFile(kept); err != nil || string(b) != "an older trace" {
		t.Errorf("a trace that failed left %q, %v", b, err)
	}
}

func TestTraceWithoutMessages(t *testing.T) {
	socket, _ := still{snapshot: scenes()["ok"].snapshot(t), ring: new(trace.Ring)}.listen(t, nil)
	if got := verbIn(t.Context(), "trace", "--socket", socket); got != (outcome{exitOK, "", "uplinkd: no messages yet\n"}) {
		t.Errorf("%+v", got)
	}
}

// TestTraceFollows has messages come while one looks, and then either the user or the daemon end it.
func TestTraceFollows(t *testing.T) {
	ring := talk(t)
	socket, stop := still{snapshot: scenes()["ok"].snapshot(t), ring: ring}.listen(t, nil)
	past := ring.Packets()
	ctx, interrupt := context.WithCancel(t.Context())
	more := &afterLines{len(past), func() { ring.Record(past[0]) }}
	enough := &afterLines{len(past) + 1, interrupt}
	got := verbTo(ctx, both{more, enough}, "trace", "-f", "--socket", socket)
	if got.status != exitOK || strings.Count(got.stdout, "\n") != len(past)+1 || got.stderr != "uplinkd: following messages; end with Ctrl-C\n" {
		t.Errorf("interrupted: %+v", got)
	}
	got = verbTo(t.Context(), &afterLines{1, stop}, "trace", "-f", "--json", "--socket", socket)
	want := `{"schema_version":1,"error":"the daemon went away: the daemon stops; see: systemctl status uplinkd"}` + "\n"
	if got.status != exitFailed || !strings.HasSuffix(got.stdout, want) || !strings.Contains(got.stderr, "the daemon went away") {
		t.Errorf("the daemon stops: %+v", got)
	}
}

// both writes to two writers.
type both [2]*afterLines

func (b both) Write(p []byte) (int, error) {
	for _, w := range b {
		w.Write(p)
	}
	return len(p), nil
}

// TestTraceTellsOfGaps looks at a trace with holes, as a reader gets that is slower than the messages.
func TestTraceTellsOfGaps(t *testing.T) {
	var g gaps
	var said []string
	for _, seq := range []uint64{7, 8, 10, 11, 14} {
		said = append(said, g.before(seq))
	}
	want := "||1 message missing here||2 messages missing here"
	if got := strings.Join(said, "|"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestTraceFile has tcpdump read what -w wrote, and compares a file with standard output and with one that is written while
// messages are followed.
func TestTraceFile(t *testing.T) {
	netlab.NeedProgram(t, "tcpdump", "tcpdump")
	ring := talk(t)
	socket, _ := still{snapshot: scenes()["ok"].snapshot(t), ring: ring}.listen(t, nil)
	dir := t.TempDir()
	file := filepath.Join(dir, "fiber.pcapng")
	if err := os.WriteFile(file, []byte(strings.Repeat("older and longer ", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	got := verbIn(t.Context(), "trace", "-w", file, "--socket", socket)
	if want := (outcome{exitOK, "", "uplinkd: 5 messages written to " + file + "\n"}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := tcpdump(t, whole)
	for _, want := range []string{"fe80::2.546 > ff02::1:2.547: [udp sum ok] dhcp6 solicit", "fe80::1.547 > fe80::2.546: [udp sum ok] dhcp6 advertise",
		"fe80::2.546 > ff02::1:2.547: [udp sum ok] dhcp6 request", "fe80::1.547 > fe80::2.546: [udp sum ok] dhcp6 reply", "2001:db8:100::/56"} {
		if !strings.Contains(text, want) {
			t.Errorf("tcpdump does not show %q:\n%s", want, text)
		}
	}
	if !strings.Contains(string(whole), "wan0") || !strings.Contains(string(whole), reconfigureKey) {
		t.Error("the file lacks the interface or octets of a message")
	}
	if got := verbIn(t.Context(), "trace", "-w", "-", "--socket", socket); got.stdout != string(whole) ||
		got.stderr != "uplinkd: 5 messages written to standard output\n" {
		t.Errorf("standard output: status %d, %d octets instead of %d, %s", got.status, len(got.stdout), len(whole), got.stderr)
	}

	followed := filepath.Join(dir, "followed.pcapng")
	ctx, interrupt := context.WithCancel(t.Context())
	done := make(chan outcome)
	go func() { done <- verbIn(ctx, "trace", "-f", "-w", followed, "--socket", socket) }()
	if !soon(func() bool { b, _ := os.ReadFile(followed); return string(b) == string(whole) }) {
		t.Error("messages do not reach the file while it is written")
	}
	interrupt()
	if got := <-done; got.status != exitOK || !strings.HasSuffix(got.stderr, "uplinkd: 5 messages written to "+followed+"\n") {
		t.Errorf("followed: %+v", got)
	}
	if info, err := os.Stat(followed); err != nil || info.Mode() != 0o600 {
		t.Errorf("a new file has mode %v, %v; it may hold a key", info.Mode(), err)
	}
}

// tcpdump returns what tcpdump makes of a capture file.
func tcpdump(t *testing.T, file []byte) string {
	t.Helper()
	cmd := exec.Command("tcpdump", "-nn", "-vv", "-r", "-")
	cmd.Stdin = bytes.NewReader(file)
	out, err := cmd.CombinedOutput()
	if err != nil && strings.Contains(string(out), "Couldn't change to") {
		t.Skip("skipped: tcpdump wants to give up root, and this user namespace has no setgroups(2)")
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

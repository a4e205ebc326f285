package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

// The files in testdata are dumps as a little-endian Linux 6.18 answered them, with this sequence number, when the rows
// of everyRow were in place.
const recorded = 0x01020304

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func recording(t testing.TB, name string) []byte {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("skipped: recorded on a little-endian machine, and netlink speaks the byte order of the machine")
	}
	b, err := os.ReadFile(filepath.Join("testdata", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// reader decodes dumps of any kind into a state.
func reader(want uint16, s *kernel.State, links *[]kernel.Link) *dumpReader {
	return &dumpReader{seq: recorded, want: want, each: func(b []byte) error {
		switch want {
		case unix.RTM_NEWROUTE:
			f, ok, err := decodeRoute(b)
			if f.index != 0 {
				f.row.Dev = fmt.Sprintf("#%d", f.index)
			}
			s.Routes = appendIf(s.Routes, f.row, ok)
			return err
		case unix.RTM_NEWRULE:
			f, ok, err := decodeRule(b)
			s.Rules = appendIf(s.Rules, f.row, ok && f.proto == kernel.Protocol)
			return err
		case unix.RTM_NEWADDR:
			a, ok, err := decodeAddress(start)(b)
			a.row.Dev = fmt.Sprintf("#%d", a.index)
			s.Addresses = appendIf(s.Addresses, a.row, ok && a.proto == kernel.Protocol)
			return err
		}
		l, ok, err := decodeLink(b)
		*links = appendIf(*links, l, ok)
		return err
	}}
}

func appendIf[R any](rows []R, r R, ok bool) []R {
	if ok {
		return append(rows, r)
	}
	return rows
}

var kinds = map[string]uint16{
	"routes4": unix.RTM_NEWROUTE, "routes6": unix.RTM_NEWROUTE, "rules": unix.RTM_NEWRULE, "addresses": unix.RTM_NEWADDR, "links": unix.RTM_NEWLINK,
}

func TestDecodeRecorded(t *testing.T) {
	var s kernel.State
	var links []kernel.Link
	for name, kind := range kinds {
		d := reader(kind, &s, &links)
		d.datagram(recording(t, name))
		if d.err != nil || !d.done || d.interrupted {
			t.Errorf("%s: %+v", name, d)
		}
	}
	want, err := os.ReadFile("testdata/state.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Normalize().Text(start); got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if len(links) != 3 || links[0].Name != "lo" || !links[1].Up {
		t.Errorf("links: %+v", links)
	}
}

// A dump that was interrupted says so, whichever of its messages carries the flag.
func TestInterruptedRecorded(t *testing.T) {
	for name, kind := range kinds {
		b := recording(t, name)
		for at := 0; at < len(b); at += align(int(native.Uint32(b[at:]))) {
			c := slices.Clone(b)
			native.PutUint16(c[at+6:], native.Uint16(c[at+6:])|unix.NLM_F_DUMP_INTR)
			d := reader(kind, &kernel.State{}, new([]kernel.Link))
			d.datagram(c)
			if !d.interrupted || !d.done {
				t.Errorf("%s: flag at %d is not seen", name, at)
			}
		}
	}
}

// A dump that is cut off anywhere but between messages is an error, not a shorter state.
func TestTruncatedRecorded(t *testing.T) {
	for name, kind := range kinds {
		b := recording(t, name)
		whole := map[int]bool{}
		for at := 0; at < len(b); at += align(int(native.Uint32(b[at:]))) {
			whole[at] = true
		}
		for n := range b {
			d := reader(kind, &kernel.State{}, new([]kernel.Link))
			d.datagram(b[:n])
			if d.done || whole[n] == errors.Is(d.err, errMalformed) {
				t.Errorf("%s cut to %d bytes: done %v, error %v", name, n, d.done, d.err)
			}
		}
	}
}

// A dump ends with an error if the kernel refuses it or gives up in the middle.
func TestDumpRefused(t *testing.T) {
	done := encoder{}
	at, h := done.begin(unix.NLMSG_DONE, 0, recorded, 4)
	code := -int32(unix.ENOMEM)
	native.PutUint32(h, uint32(code))
	done.end(at)
	refused := acknowledgement(-int32(unix.EINVAL), "no such thing")
	for want, b := range map[string][]byte{
		"cannot allocate memory":                            done.buf,
		"invalid argument (the kernel says: no such thing)": refused,
	} {
		d := reader(unix.RTM_NEWROUTE, &kernel.State{}, nil)
		d.datagram(b)
		if !d.done || d.err == nil || d.err.Error() != want {
			t.Errorf("done %v, error %v; want %s", d.done, d.err, want)
		}
	}
}

// acknowledgement is an NLMSG_ERROR as the kernel sends it with NETLINK_CAP_ACK and NETLINK_EXT_ACK.
func acknowledgement(code int32, text string) []byte {
	e := encoder{}
	at, h := e.begin(unix.NLMSG_ERROR, unix.NLM_F_CAPPED|unix.NLM_F_ACK_TLVS, recorded, unix.SizeofNlMsgerr)
	native.PutUint32(h, uint32(code))
	native.PutUint32(h[4:], 1000) // length of the request, which is not repeated
	e.string(unix.NLMSGERR_ATTR_MSG, text)
	e.end(at)
	return e.buf
}

// Answers are filed by sequence number; what answers nothing asked is not counted.
func TestCollect(t *testing.T) {
	b := slices.Concat(acknowledgement(0, ""), acknowledgement(0, ""), acknowledgement(-int32(unix.EEXIST), "there already"))
	native.PutUint32(b[len(acknowledgement(0, "")):][8:], recorded+7)
	native.PutUint32(b[2*len(acknowledgement(0, "")):][8:], recorded+1)
	answers := make([]answer, 3)
	n, err := collect(b, recorded, answers)
	if n != 2 || err != nil || !answers[0].here || answers[0].err != nil || answers[2].here {
		t.Fatalf("%d answers, %v: %v", n, err, answers)
	}
	if err := answers[1].err; !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "there already") {
		t.Errorf("second: %v", err)
	}
}

// Whatever arrives, decoding ends without a panic, and what it shows as rows are rows.
func FuzzDecode(f *testing.F) {
	for name, kind := range kinds {
		f.Add(kind, recording(f, name))
	}
	f.Add(uint16(unix.RTM_NEWROUTE), acknowledgement(-22, "no"))
	f.Fuzz(func(t *testing.T, kind uint16, b []byte) {
		var s kernel.State
		var links []kernel.Link
		d := reader(kind, &s, &links)
		d.datagram(b)
		s = s.Normalize()
		_ = s.Text(start)
		for _, r := range s.Routes {
			if !r.Dst.IsValid() || r.Dst != r.Dst.Masked() {
				t.Errorf("route to %s", r.Dst)
			}
		}
		for _, a := range s.Addresses {
			if !a.Prefix.IsValid() {
				t.Errorf("address %s", a.Text(start))
			}
		}
		if plan := kernel.Diff(s, s, start); len(plan.Ops) != 0 {
			t.Errorf("differs from itself:\n%s", plan.Text())
		}
		answers := make([]answer, 4)
		if n, _ := collect(b, recorded, answers); n > len(answers) {
			t.Errorf("%d answers to %d requests", n, len(answers))
		}
	})
}

// attribute is a netlink attribute of a recorded or hand-written message.
func attribute(typ uint16, data ...byte) []byte {
	b := native.AppendUint16(native.AppendUint16(nil, uint16(unix.SizeofNlAttr+len(data))), typ)
	return append(append(b, data...), make([]byte, -len(data)&3)...)
}

// The bytes are those of "ip link add link eth0 name eth0.832 type vlan id 832" (if_link.h), which not every kernel that
// runs tests has. Attributes of other kinds have the same numbers and other meanings.
func TestDecodeVLAN(t *testing.T) {
	id := native.AppendUint16(nil, 832)
	link := func(kind string) []byte {
		info := append(attribute(unix.IFLA_INFO_KIND, append([]byte(kind), 0)...),
			attribute(unix.IFLA_INFO_DATA|unix.NLA_F_NESTED, append(attribute(unix.IFLA_VLAN_PROTOCOL, 0x81, 0), attribute(unix.IFLA_VLAN_ID, id...)...)...)...)
		b := append(make([]byte, unix.SizeofIfInfomsg), attribute(unix.IFLA_IFNAME, []byte("eth0.832\x00")...)...)
		return append(b, attribute(unix.IFLA_LINKINFO|unix.NLA_F_NESTED, info...)...)
	}
	for kind, want := range map[string]uint16{"vlan": 832, "macvlan": 0} {
		if l, ok, err := decodeLink(link(kind)); err != nil || !ok || l.VLAN != want || l.Name != "eth0.832" {
			t.Errorf("%s: %+v %v %v", kind, l, ok, err)
		}
	}
	if _, _, err := decodeLink(append(make([]byte, unix.SizeofIfInfomsg), attribute(unix.IFLA_LINKINFO, 9, 0, 1, 0)...)); err == nil {
		t.Error("a nested attribute longer than its place is taken")
	}
}

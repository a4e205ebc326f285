package pd

import (
	"testing"
	"time"
)

func TestNewDUID(t *testing.T) {
	mac := []byte{2, 0, 0, 0, 1, 1}
	random := []byte("0123456789abcdef")
	year2000 := time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		got  DUID
		want string
	}{
		{"link-layer and time", NewDUID(mac, year2000.Add(0x01020304*time.Second), nil), "00:01:00:01:01:02:03:04:02:00:00:00:01:01"},
		{"in another zone", NewDUID(mac, year2000.In(time.FixedZone("", 3600)), nil), "00:01:00:01:00:00:00:00:02:00:00:00:01:01"},
		{"modulo 2^32", NewDUID(mac, year2000.Add((1<<32+5)*time.Second), nil), "00:01:00:01:00:00:00:05:02:00:00:00:01:01"},
		{"clock before 2000", NewDUID(mac, time.Unix(0, 0), nil), "00:01:00:01:c7:92:bc:80:02:00:00:00:01:01"},
		{"no address", NewDUID(nil, year2000, random), "00:04:30:31:32:33:34:35:46:37:b8:39:61:62:63:64:65:66"},
	} {
		if c.got.String() != c.want || !c.got.Valid() {
			t.Errorf("%s: %v, want %s", c.name, c.got, c.want)
		}
	}
	if d := NewDUID(make([]byte, 200), year2000, nil); !d.Valid() {
		t.Errorf("a huge address makes a DUID of %d octets", len(d))
	}
	if string(random) != "0123456789abcdef" {
		t.Errorf("the random octets were modified: %q", random)
	}
}

func TestIAIDFor(t *testing.T) {
	if got := IAIDFor("fiber"); got != 0x1021e0c1 {
		t.Errorf("IAIDFor(fiber) is %#x: an update must never change it", got)
	}
	if IAIDFor("fiber") == IAIDFor("cable") || IAIDFor("") == 0 {
		t.Error("IAIDs of two uplinks are equal or one is 0")
	}
}

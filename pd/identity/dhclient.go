package identity

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"uplinkd/pd"
)

// Dhclient reads a lease file of ISC dhclient. Of several DUIDs and of several leases of an interface the last counts, as
// it does for dhclient, which only ever appends. The DUID is default-duid or, in files without that, the client-id of a
// lease.
func Dhclient(b []byte) (Identity, error) {
	if err := checkSize(b); err != nil {
		return Identity{}, err
	}
	p := dhclientParser{scan: scanner{b: b, line: 1}}
	if err := p.file(); err != nil {
		return Identity{}, fmt.Errorf("line %d: %w", p.scan.start, err)
	}
	if p.duid == "" {
		p.duid = p.clientID
	}
	if p.duid == "" {
		return Identity{}, errors.New("no default-duid in it: is it a lease file of dhclient -6?")
	}
	id := Identity{DUID: p.duid}
	for _, name := range p.order {
		id.Delegations = append(id.Delegations, p.prefixes[name]...)
		id.Addresses = append(id.Addresses, p.addresses[name]...)
	}
	return id, nil
}

// dhclientParser collects what the statements of a lease file say.
type dhclientParser struct {
	scan           scanner
	duid, clientID pd.DUID
	order          []string                // interfaces as they were seen first
	prefixes       map[string][]Delegation // of the last lease with prefixes of each interface
	addresses      map[string][]Address    // of the last lease with addresses
}

// file reads all statements.
func (p *dhclientParser) file() error {
	for {
		words, end, err := p.statement()
		switch {
		case err != nil:
			return err
		case end == endOfFile && len(words) == 0:
			return nil
		case end == endOfFile:
			return errors.New("the file ends in the middle of a statement")
		case end == '}':
			return errors.New("} without {")
		case end == ';' && is(words, "default-duid", 2):
			if p.duid, err = duidOf(words[1]); err != nil {
				return fmt.Errorf("default-duid: %w", err)
			}
		case end == '{' && words[0].is("lease6"):
			if err := p.lease6(); err != nil {
				return err
			}
		case end == '{':
			if err := p.skipBlock(); err != nil { // leases of IPv4
				return err
			}
		}
	}
}

// lease6 reads the block of a lease, behind its brace.
func (p *dhclientParser) lease6() error {
	name, ds, as := "", []Delegation(nil), []Address(nil)
	for {
		words, end, err := p.statement()
		switch {
		case err != nil:
			return err
		case end == endOfFile:
			return errors.New("the file ends inside a lease6")
		case end == '}':
			p.keep(name, ds, as)
			return nil
		case end == ';' && is(words, "interface", 2):
			name = words[1].text
		case end == ';' && is(words, "option", 3) && words[1].is("dhcp6.client-id"):
			if p.clientID, err = duidOf(words[2]); err != nil {
				return fmt.Errorf("option dhcp6.client-id: %w", err)
			}
		case end == '{' && is(words, "ia-pd", 2):
			more, err := p.iaPD(words[1])
			if err != nil {
				return err
			}
			ds = append(ds, more...)
		case end == '{' && is(words, "ia-na", 2):
			iaid, err := iaidOf(words[1])
			if err != nil {
				return fmt.Errorf("ia-na %w", err)
			}
			as = append(as, Address{IAID: iaid})
			if err := p.skipBlock(); err != nil {
				return err
			}
		case end == '{':
			if err := p.skipBlock(); err != nil {
				return err
			}
		}
	}
}

// keep makes ds and as those of the last lease of an interface. A lease without prefixes is not one of no prefixes, but of
// another dhclient.
func (p *dhclientParser) keep(name string, ds []Delegation, as []Address) {
	if p.prefixes == nil {
		p.prefixes, p.addresses = map[string][]Delegation{}, map[string][]Address{}
	}
	if !slices.Contains(p.order, name) {
		p.order = append(p.order, name)
	}
	for i := range ds {
		ds[i].Interface = name
	}
	for i := range as {
		as[i].Interface = name
	}
	if len(ds) > 0 {
		p.prefixes[name] = ds
	}
	if len(as) > 0 {
		p.addresses[name] = as
	}
}

// iaPD reads the block of an IA_PD, behind its brace.
func (p *dhclientParser) iaPD(name word) (ds []Delegation, err error) {
	iaid, err := iaidOf(name)
	if err != nil {
		return nil, fmt.Errorf("ia-pd %w", err)
	}
	for {
		words, end, err := p.statement()
		switch {
		case err != nil:
			return nil, err
		case end == endOfFile:
			return nil, errors.New("the file ends inside an ia-pd")
		case end == '}':
			return ds, nil
		case end == '{':
			if is(words, "iaprefix", 2) {
				prefix, err := prefixOf(words[1].text)
				if err != nil {
					return nil, err
				}
				ds = append(ds, Delegation{IAID: iaid, Prefix: prefix})
			}
			if err := p.skipBlock(); err != nil {
				return nil, err
			}
		}
	}
}

// skipBlock reads past the end of a block.
func (p *dhclientParser) skipBlock() error {
	for depth := 1; depth > 0; {
		_, end, err := p.statement()
		switch {
		case err != nil:
			return err
		case end == endOfFile:
			return errors.New("the file ends inside a block")
		case end == '{':
			depth++
		case end == '}':
			depth--
		}
	}
	return nil
}

// maxWords is how many words a statement may have; options with lists of addresses have some dozens.
const maxWords = 4096

// statement reads the words up to the next ; { or }, which it returns.
func (p *dhclientParser) statement() (words []word, end byte, err error) {
	for {
		w, err := p.scan.next()
		switch {
		case err != nil:
			return nil, 0, err
		case w.punct == '{' && len(words) == 0:
			return nil, 0, errors.New("a block without a name")
		case w.punct == '}' && len(words) > 0:
			return nil, 0, errors.New("; is missing before }")
		case w.punct != 0:
			return words, w.punct, nil
		case len(words) == maxWords:
			return nil, 0, fmt.Errorf("more than %d words in a statement", maxWords)
		}
		words = append(words, w)
	}
}

// is reports whether a statement has n words of which the first is name.
func is(words []word, name string, n int) bool { return len(words) == n && words[0].is(name) }

func duidOf(w word) (pd.DUID, error) {
	b, err := octetsOf(w)
	if err != nil {
		return "", err
	}
	return valid(b)
}

// octetsOf reads either form that dhclient has for octets: a string in quotation marks, which it writes where all of them are
// printable, or hexadecimal with colons, without leading zeros.
func octetsOf(w word) ([]byte, error) {
	if w.quoted {
		return []byte(w.text), nil
	}
	var b []byte
	if len(w.text) > 3*130 {
		return nil, fmt.Errorf("%d characters are too many octets", len(w.text))
	}
	for part := range strings.SplitSeq(w.text, ":") {
		if len(part) == 1 {
			part = "0" + part
		}
		c, err := hex.DecodeString(part)
		if err != nil || len(c) != 1 {
			return nil, fmt.Errorf("%q: want hexadecimal octets with colons between them", w.text)
		}
		b = append(b, c[0])
	}
	return b, nil
}

func iaidOf(w word) (uint32, error) {
	octets, err := octetsOf(w)
	if err != nil || len(octets) != 4 {
		return 0, fmt.Errorf("%q: want an IAID of four octets", w.text)
	}
	return binary.BigEndian.Uint32(octets), nil
}

func prefixOf(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is6() {
		return netip.Prefix{}, fmt.Errorf("iaprefix %q: want an IPv6 prefix", text)
	}
	p = p.Masked()
	if why := pd.Undelegable(p); why != "" {
		return netip.Prefix{}, fmt.Errorf("iaprefix %s: %s", p, why)
	}
	return p, nil
}

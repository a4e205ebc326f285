package rtnl

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

// sealPrefix begins the name of the seal: an empty chain that nothing jumps to, which carries in its name the sum of the
// text that the table was written with and the sum of what the kernel made of it. Whoever changes the table changes the
// second one without changing the seal. It stands in the kernel and not in a file, so that it lives and dies with the table:
// a restart finds it, and a table of another boot cannot be taken for this one. It is a name since chains have comments
// only from Linux 5.10 on.
const sealPrefix = "as_written_"

// contents is what the kernel has in one table, without what counts, and without handles.
type contents struct {
	rules [][]byte // in their order
	rest  [][]byte // the table, chains, sets, elements and named objects
	seals []string
}

// What of each kind of object says what it is. The rest changes by itself (counters, uses, time left) or with the way
// it came about (handles, positions).
var (
	tableAttrs   = []uint16{unix.NFTA_TABLE_FLAGS}
	chainAttrs   = []uint16{unix.NFTA_CHAIN_NAME, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY, unix.NFTA_CHAIN_TYPE, chainFlags}
	ruleAttrs    = []uint16{unix.NFTA_RULE_CHAIN, unix.NFTA_RULE_USERDATA}
	objectAttrs  = []uint16{unix.NFTA_OBJ_NAME, unix.NFTA_OBJ_TYPE}
	elementAttrs = []uint16{unix.NFTA_SET_ELEM_KEY, elementKeyEnd, unix.NFTA_SET_ELEM_DATA, unix.NFTA_SET_ELEM_FLAGS, unix.NFTA_SET_ELEM_OBJREF}
	setAttrs     = []uint16{unix.NFTA_SET_NAME, unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DATA_TYPE,
		unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_TIMEOUT, unix.NFTA_SET_OBJ_TYPE}
)

// Constants of linux/netfilter/nf_tables.h that package unix lacks.
const (
	chainFlags    = 10   // NFTA_CHAIN_FLAGS
	elementKeyEnd = 10   // NFTA_SET_ELEM_KEY_END
	setTimeout    = 0x10 // NFT_SET_TIMEOUT
	setEval       = 0x20 // NFT_SET_EVAL: rules add elements
	exprName      = 1    // NFTA_EXPR_NAME
	exprData      = 2    // NFTA_EXPR_DATA
)

// contents reads one table.
func (t *tables) contents(family string) (c contents, err error) {
	code, err := nftFamily(family)
	if err != nil {
		return c, err
	}
	read := func(get uint16, each func(attrs) error) {
		if err != nil {
			return
		}
		err = t.dump(get, code, nil, func(_ uint8, a attrs) error {
			if attrString(a[unix.NFTA_CHAIN_TABLE]) != kernel.TableName { // the table is attribute 1 of every kind
				return nil
			}
			return each(a)
		})
	}
	var sets []string
	read(unix.NFT_MSG_GETTABLE, func(a attrs) error {
		c.add("table", a, tableAttrs)
		return nil
	})
	read(unix.NFT_MSG_GETCHAIN, func(a attrs) error {
		if name := attrString(a[unix.NFTA_CHAIN_NAME]); strings.HasPrefix(name, sealPrefix) {
			c.seals = append(c.seals, name)
			return nil
		}
		c.add("chain", a, chainAttrs)
		return nil
	})
	read(unix.NFT_MSG_GETRULE, func(a attrs) error {
		exprs, err := expressions(a[unix.NFTA_RULE_EXPRESSIONS])
		c.rules = append(c.rules, append(record("rule", a, ruleAttrs), exprs...))
		return err
	})
	read(unix.NFT_MSG_GETSET, func(a attrs) error {
		c.add("set", a, setAttrs)
		if f := a[unix.NFTA_SET_FLAGS]; len(f) != 4 || binary.BigEndian.Uint32(f)&(setTimeout|setEval) == 0 {
			sets = append(sets, attrString(a[unix.NFTA_SET_NAME]))
		}
		return nil
	})
	read(unix.NFT_MSG_GETOBJ, func(a attrs) error {
		c.add("object", a, objectAttrs)
		return nil
	})
	for _, set := range sets {
		if err == nil {
			err = t.elements(code, set, &c)
		}
	}
	return c, err
}

func (t *tables) elements(family uint8, set string, c *contents) error {
	var head encoder
	head.string(unix.NFTA_SET_ELEM_LIST_TABLE, kernel.TableName)
	head.string(unix.NFTA_SET_ELEM_LIST_SET, set)
	return t.dump(unix.NFT_MSG_GETSETELEM, family, head.buf, func(_ uint8, list attrs) error {
		return eachAttr(list[unix.NFTA_SET_ELEM_LIST_ELEMENTS], func(_ uint16, element []byte) error {
			a := attrs{}
			err := eachAttr(element, func(typ uint16, data []byte) error {
				a[typ] = data
				return nil
			})
			c.add("element "+set, a, elementAttrs)
			return err
		})
	})
}

func (c *contents) add(kind string, a attrs, keep []uint16) {
	c.rest = append(c.rest, record(kind, a, keep))
}

// record is an object as bytes, of which no two different ones have the same.
func record(kind string, a attrs, keep []uint16) []byte {
	b := append([]byte(kind), 0)
	for _, typ := range keep {
		data, ok := a[typ]
		if !ok {
			continue
		}
		b = native.AppendUint16(b, typ)
		b = native.AppendUint32(b, uint32(len(data)))
		b = append(b, data...)
	}
	return b
}

// expressions are the expressions of a rule without the state of those that have one.
func expressions(list []byte) (b []byte, err error) {
	err = eachAttr(list, func(_ uint16, expr []byte) error {
		a := attrs{}
		err := eachAttr(expr, func(typ uint16, data []byte) error {
			a[typ] = data
			return nil
		})
		switch attrString(a[exprName]) {
		case "counter", "quota", "last":
			delete(a, exprData)
		}
		b = append(b, record("expression", a, []uint16{exprName, exprData})...)
		return err
	})
	return b, err
}

// sum identifies the contents. Chains and elements come in an order that the kernel may change by itself (hash tables
// grow), rules do not.
func (c *contents) sum() string {
	slices.SortFunc(c.rest, bytes.Compare)
	h := sha256.New()
	for _, list := range [][][]byte{c.rules, c.rest} {
		for _, b := range list {
			h.Write(native.AppendUint32(nil, uint32(len(b))))
			h.Write(b)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// writtenAs is the sum of the text that the table was written with, or "" if it is not as it was then.
func (c *contents) writtenAs() string {
	if len(c.seals) != 1 {
		return ""
	}
	text, made, _ := strings.Cut(strings.TrimPrefix(c.seals[0], sealPrefix), "_")
	if _, err := hex.DecodeString(text); err != nil || made != c.sum() {
		return ""
	}
	return text
}

// sealFor is the name of the seal of these contents, written with body.
func (c *contents) sealFor(body string) string {
	return sealPrefix + kernel.TextSum(body) + "_" + c.sum()
}

package kernel

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
)

// TableName is the name of every nft table that uplinkd has. It is the mark of ownership: a table of this name is
// uplinkd's, whoever made it, and one of another name never is.
const TableName = "uplinkd"

// Table is an nft table named uplinkd. Its family is the identity. It is written as a whole, in one transaction, which
// leaves no moment without the one or the other contents; so everything in it has to come from uplinkd.
//
// The kernel does not keep the text it was given. What a reader finds is the Sum of the text that the table was written
// with, provided that the table is still as it was then.
type Table struct {
	Family string // "ip6", "inet", ...
	Body   string // wanted: the Ruleset's Text; "" when read
	Sum    string // read: TextSum of the body it was written with, "" if the table has been changed since
	Reason Reason
}

// TextSum identifies the body of a Table.
func TextSum(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:16])
}

// Found is t as a reader finds it after it was written.
func (t Table) Found() Table { return Table{Family: t.Family, Sum: t.sum()} }

func (t Table) sum() string {
	if t.Body == "" {
		return t.Sum
	}
	return TextSum(t.Body)
}

// Phase of tables.
func (Table) Phase() Phase { return PhaseTable }

// Why returns t.Reason.
func (t Table) Why() Reason { return t.Reason }

// Compare orders and identifies tables by family.
func (t Table) Compare(o Table) int { return cmp.Compare(t.Family, o.Family) }

// Equal reports whether nothing has to be written to turn t into o. A table that was changed equals nothing, not even
// itself; a reader that finds one and an engine that wants none delete it all the same.
func (t Table) Equal(o Table, _ time.Time) bool { return t.sum() == o.sum() && t.sum() != "" }

// Text is the table in nft(8) syntax on one line, or what is known of it.
func (t Table) Text(time.Time) string {
	switch {
	case t.Body != "":
		return t.name() + " { " + oneLine(t.Body) + "}"
	case t.Sum != "":
		return t.name() + " # as written, text " + t.Sum
	}
	return t.name() + " # changed by somebody else, or half done"
}

func (t Table) name() string { return t.Family + " " + TableName }

// Script is the input of nft -f that puts t in the place of whatever the table holds, or makes it. nft takes it for one
// transaction: packets see the old table or the new one.
func (t Table) Script() string {
	return "add table " + t.name() + "\ndelete table " + t.name() + "\ntable " + t.name() + " {\n" + t.Body + "}\n"
}

// command is the operation as a person would type it.
func (t Table) command(v Verb) string {
	if v == Delete {
		return "nft delete table " + t.name()
	}
	return "nft 'add table " + t.name() + "; delete table " + t.name() + "; table " + t.Text(time.Time{}) + "'"
}

// object is the operation without the contents.
func (t Table) object(v Verb) string {
	switch v {
	case Delete:
		return t.command(v)
	case Replace:
		return "nft replace table " + t.name()
	}
	return "nft add table " + t.name()
}

// oneLine puts statements behind each other: "set dead { type ipv6_addr; flags interval; }; ".
func oneLine(body string) string {
	var b strings.Builder
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		b.WriteString(line)
		if !strings.HasSuffix(line, ";") && !strings.HasSuffix(line, "{") {
			b.WriteByte(';')
		}
		b.WriteByte(' ')
	}
	return b.String()
}

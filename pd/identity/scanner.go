package identity

import (
	"bytes"
	"errors"
	"strings"
)

// endOfFile stands for the end in place of a punctuation mark.
const endOfFile = 0xff

// word is one of a dhclient file: text, or a punctuation mark.
type word struct {
	text   string
	quoted bool
	punct  byte // '{', '}', ';' or endOfFile; 0 for text
}

// is reports whether w is the keyword name.
func (w word) is(name string) bool { return !w.quoted && strings.EqualFold(w.text, name) }

// scanner splits a dhclient file into words.
type scanner struct {
	b     []byte
	line  int // at the front of b
	start int // where the latest word began
}

func (s *scanner) next() (word, error) {
	s.space()
	s.start = s.line
	if len(s.b) == 0 {
		return word{punct: endOfFile}, nil
	}
	switch c := s.b[0]; c {
	case '{', '}', ';':
		s.b = s.b[1:]
		return word{punct: c}, nil
	case '"':
		s.b = s.b[1:]
		return s.quoted()
	}
	n := bytes.IndexAny(s.b[:min(len(s.b), maxText+1)], " \t\r\n{};\"#")
	switch {
	case n < 0 && len(s.b) > maxText:
		return word{}, errors.New("a word that is too long")
	case n < 0:
		n = len(s.b)
	}
	w := word{text: string(s.b[:n])}
	s.b = s.b[n:]
	return w, nil
}

// maxText is how long a word may be. The longest in real files are options of some hundred octets.
const maxText = 8192

// space drops white space and comments.
func (s *scanner) space() {
	comment := false
	for len(s.b) > 0 {
		switch c := s.b[0]; {
		case c == '\n':
			s.line++
			comment = false
		case comment, c == ' ', c == '\t', c == '\r':
		case c == '#':
			comment = true
		default:
			return
		}
		s.b = s.b[1:]
	}
}

// quoted reads a string behind its first quotation mark. Strings do not go over the end of a line.
func (s *scanner) quoted() (word, error) {
	var text []byte
	for len(s.b) > 0 && len(text) <= maxText {
		c := s.b[0]
		s.b = s.b[1:]
		switch c {
		case '"':
			return word{text: string(text), quoted: true}, nil
		case '\n':
			return word{}, errors.New("a string without its closing quotation mark")
		case '\\':
			e, err := s.escape()
			if err != nil {
				return word{}, err
			}
			text = append(text, e)
		default:
			text = append(text, c)
		}
	}
	return word{}, errors.New("a string without its closing quotation mark, or too long")
}

// escape reads what follows a backslash: up to three octal digits, or a character that stands for another or for itself.
func (s *scanner) escape() (byte, error) {
	value, digits := 0, 0
	for digits < 3 && digits < len(s.b) && s.b[digits] >= '0' && s.b[digits] <= '7' {
		value = value<<3 | int(s.b[digits]-'0')
		digits++
	}
	switch {
	case value > 0xff:
		return 0, errors.New("an octal escape above \\377")
	case digits > 0:
		s.b = s.b[digits:]
		return byte(value), nil
	case len(s.b) == 0 || s.b[0] == '\n':
		return 0, errors.New("a backslash at the end of the line")
	}
	c := s.b[0]
	s.b = s.b[1:]
	if i := strings.IndexByte("tnrb", c); i >= 0 {
		return "\t\n\r\b"[i], nil
	}
	return c, nil
}

package config

import (
	"fmt"
	"slices"
	"strings"
)

// maxWord bounds the words that are compared: nothing uplinkd knows is longer, and the comparison is quadratic.
const maxWord = 64

// didYouMean returns `; did you mean "interface"?` when one of the known words is close to the one given, and else the
// list of what is known.
func didYouMean(word string, known []string) string {
	if w, ok := Closest(word, known); ok {
		return fmt.Sprintf("; did you mean %q?", w)
	}
	switch len(known) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("; the only one is %q", known[0])
	}
	return "; known are " + strings.Join(known, ", ")
}

// Closest returns the known word that was most likely meant: the one with the same last part ("rapid_commit" for
// "dhcpv6.rapid_commit"), else the nearest by edit distance if at most a third of that part's letters differ, else the first of
// which it is a part ("ra.max_interval" for "ra.interval").
func Closest(word string, known []string) (string, bool) {
	if len(word) > maxWord {
		return "", false
	}
	best, found := max(1, len(lastPart(word))/3)+1, ""
	for _, k := range known {
		if lastPart(k) == lastPart(word) {
			return k, true
		}
		if d := distance(word, k); d < best {
			best, found = d, k
		}
	}
	if found == "" {
		found = partOf(word, known)
	}
	return found, found != ""
}

// partOf returns the first known key whose last part has the word as one of its words, in the same group.
func partOf(word string, known []string) string {
	for _, k := range known {
		group := strings.TrimSuffix(k, lastPart(k))
		if strings.HasPrefix(word, group) && slices.Contains(strings.Split(lastPart(k), "_"), strings.TrimPrefix(word, group)) {
			return k
		}
	}
	return ""
}

func lastPart(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// distance is the number of single letters to insert, delete, replace or swap with their neighbour to turn a into b
// (optimal string alignment).
func distance(a, b string) int {
	before, previous, current := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		current[0] = i
		for j := 1; j <= len(b); j++ {
			replace := previous[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			current[j] = min(previous[j]+1, current[j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
		before, previous, current = previous, current, before
	}
	return previous[len(b)]
}

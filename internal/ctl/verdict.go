package ctl

import (
	"fmt"
	"slices"
	"strings"

	"uplinkd/pd"
	"uplinkd/policy"
)

// verdict sums up st in a word and a sentence.
func verdict(st Status, ready bool) (Health, string) {
	if !ready {
		return Starting, strings.Join(append([]string{"the kernel has not followed yet"}, complaints(st)...), "; ")
	}
	usable, used, asked := 0, 0, false
	for _, u := range st.Uplinks {
		asked = asked || !u.Unasked
		for _, g := range u.Delegations {
			if g.State == string(policy.Preferred) {
				usable++
			}
		}
	}
	for _, d := range st.Downstreams {
		if d.works() {
			used++
		}
	}
	bad := complaints(st)
	switch {
	case usable == 0 && asked:
		return NoPrefix, strings.Join(append([]string{"nothing to number hosts with"}, bad...), "; ")
	case len(bad) > 0:
		return Degraded, strings.Join(bad, "; ")
	}
	if !asked {
		return OK, fmt.Sprintf("%s up, no prefix asked for, %s numbered", count(len(st.Uplinks), "uplink"), count(used, "downstream"))
	}
	return OK, fmt.Sprintf("%s up, %s, %s numbered", count(len(st.Uplinks), "uplink"), count(usable, "prefix"), count(used, "downstream"))
}

// complaints are what keeps st from being OK, the most important first.
func complaints(st Status) (bad []string) {
	said := map[string]bool{} // paths of what the headline names already
	for _, u := range st.Uplinks {
		text := ""
		switch {
		case !u.Up:
			text = u.Name + " is down: " + u.Reason
		case u.Unasked:
		case len(u.Delegations) == 0 && u.Client.State == pd.StateReleased:
			text = u.Name + " has given its prefix back, uplinkd renew " + u.Name + " asks for one"
		case len(u.Delegations) == 0:
			text = u.Name + " has no prefix, the client is " + u.Client.State
		case !anyPreferred(u.Delegations):
			text = u.Name + " has only deprecated prefixes"
		}
		if text != "" {
			bad, said["uplink."+u.Name] = append(bad, text), true
		}
	}
	bad = append(bad, problemsInShort(st, said)...)
	for _, h := range st.Hooks {
		if !h.OK {
			bad = append(bad, "hook "+h.Name+" fails")
		}
	}
	return bad
}

// problemsInShort names the first problem whose subject the headline does not have yet, and says how many more there are.
func problemsInShort(st Status, said map[string]bool) []string {
	rest := slices.DeleteFunc(slices.Clone(st.Problems), func(p Problem) bool { return said[p.Path] })
	switch len(rest) {
	case 0:
		return nil
	case 1:
		return []string{inShort(rest[0], st)}
	}
	return []string{inShort(rest[0], st), count(len(rest)-1, "more problem")}
}

// inShort is a problem in a few words: "lan has no subnet: subnet id 300 does not fit".
func inShort(p Problem, st Status) string {
	subject := strings.TrimPrefix(strings.TrimPrefix(p.Path, "uplink."), "downstream.")
	for _, d := range st.Downstreams {
		if p.Path == "downstream."+d.Name && len(d.Subnets) == 0 && d.AnyIP.needsSubnet() {
			subject += " has no subnet"
		}
	}
	const most = 84 // characters, for one line with the rest of the headline
	text, _, _ := strings.Cut(p.Message, "; ")
	if r := []rune(text); len(r) > most {
		if text, _, _ = strings.Cut(text, ": "); len([]rune(text)) > most {
			text = string(r[:most]) + "…"
		}
	}
	return subject + ": " + text
}

func anyPreferred(list []Delegation) bool {
	for _, g := range list {
		if g.State == string(policy.Preferred) {
			return true
		}
	}
	return false
}

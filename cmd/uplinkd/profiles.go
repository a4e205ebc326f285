package main

import (
	"fmt"
	"strings"

	"uplinkd/internal/config"
	"uplinkd/internal/ctl"
)

var profilesVerb = verb{
	name: "profiles", args: "[NAME]", summary: "defaults made for one provider, and what they set",
	about: `Lists the profiles, which set dhcpv6.* for providers whose wishes are documented; with NAME, shows what that one sets, what
it needs from you, and where that is documented. The line profile = "NAME" in the section of an uplink puts it into force; keys
that stand there too count more. Neither the configuration nor the daemon is asked.

A provider that is not in the list mostly needs no profile: the defaults follow the standard.`,
	examples: []string{"uplinkd profiles", "uplinkd profiles orange-fr"},
	run:      cmdProfiles,
}

// profilesDocument is what profiles --json prints.
type profilesDocument struct {
	SchemaVersion int               `json:"schema_version"`
	Profiles      []profileDocument `json:"profiles"`
}

// profileDocument is a profile for programs.
type profileDocument struct {
	Name    string           `json:"name"`
	Summary string           `json:"summary"`
	About   string           `json:"about,omitempty"`
	Needs   []profileNeed    `json:"needs"`
	Sets    []profileSetting `json:"sets"`
	Repeat  int              `json:"prefix_per_downstream_up_to,omitempty"`
	Sources []string         `json:"sources"`
}

type profileNeed struct {
	Key string `json:"key"`
	For string `json:"for"`
}

type profileSetting struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
}

func cmdProfiles(env *environment, args []string) int {
	fs := bareFlags("profiles")
	env.jsonFlag(fs)
	rest, status, ok := env.parse(fs, args, 0, 1)
	if !ok {
		return status
	}
	shown := config.Profiles()
	if len(rest) == 1 {
		p, ok := config.FindProfile(rest[0])
		if !ok {
			return env.usage("profiles", "there is no profile %q; known are %s", rest[0], strings.Join(config.ProfileNames(), ", "))
		}
		shown = []config.Profile{p}
	}
	switch {
	case env.json:
		env.printJSON(profilesFor(shown))
	case len(rest) == 1:
		env.showProfile(shown[0])
	default:
		for _, p := range shown {
			fmt.Fprintf(env.stdout, "%-10s  %s\n", p.Name, p.Summary)
		}
		fmt.Fprintln(env.stdout, "what one of them sets: uplinkd profiles NAME")
	}
	return exitOK
}

func profilesFor(shown []config.Profile) profilesDocument {
	doc := profilesDocument{SchemaVersion: ctl.SchemaVersion, Profiles: []profileDocument{}}
	for _, p := range shown {
		d := profileDocument{Name: p.Name, Summary: p.Summary, About: p.About, Needs: []profileNeed{}, Repeat: p.Repeat, Sources: p.Sources}
		for _, n := range p.Needs {
			d.Needs = append(d.Needs, profileNeed(n))
		}
		for _, s := range p.Sets {
			d.Sets = append(d.Sets, profileSetting(s))
		}
		doc.Profiles = append(doc.Profiles, d)
	}
	return doc
}

// showProfile prints a profile as TOML that means the same in the section of an uplink.
func (env *environment) showProfile(p config.Profile) {
	comment := func(text string) {
		for _, line := range wrap(text, 98) {
			fmt.Fprintln(env.stdout, "# "+line)
		}
	}
	comment(p.Name + ": " + p.Summary)
	if p.About != "" {
		comment(p.About)
	}
	for _, s := range p.Sets {
		fmt.Fprintln(env.stdout, s)
	}
	if p.Repeat > 0 {
		comment(fmt.Sprintf("and asks for as many such prefixes as the uplink has downstreams, up to %d", p.Repeat))
	}
	for _, n := range p.Needs {
		comment("and needs " + n.Key + ": " + n.For)
	}
	for _, s := range p.Sources {
		fmt.Fprintln(env.stdout, "# see "+s)
	}
}

package rtnl

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

const (
	nftTimeout = 2 * time.Second // nft takes some milliseconds, also for a thousand elements
	nftSays    = 4 << 10         // bytes of its output that are looked at
)

// table writes or deletes a table and counts the transactions. What happens to be changed by others within the
// milliseconds between writing and sealing is taken for ours.
func (a *applier) table(ctx context.Context, v kernel.Verb, r kernel.Table) error {
	t := &a.k.tables
	family, err := nftFamily(r.Family)
	if err != nil {
		return err
	}
	if err := t.usable(); err != nil {
		return err
	}
	a.report.Writes++
	if v == kernel.Delete {
		err := t.change(unix.NFT_MSG_DELTABLE, 0, family, 0, map[uint16]string{unix.NFTA_TABLE_NAME: kernel.TableName})
		return explain(err, r)
	}
	if r.Body == "" {
		return fmt.Errorf("%w: a table without contents", errUnsupported)
	}
	if err := a.k.runNFT(ctx, r.Script()); err != nil {
		return err
	}
	t.none = false
	t.notice()
	a.report.Writes++
	if err := t.seal(family, r); err != nil {
		return fmt.Errorf("it was written, but not sealed (so it will be written again): %w", err)
	}
	return nil
}

// seal marks a table that was just written, see sealPrefix.
func (t *tables) seal(family uint8, r kernel.Table) error {
	for range dumpAttempts {
		generation, err := t.current()
		if err != nil {
			return err
		}
		c, err := t.contents(r.Family)
		if errors.Is(err, errInterrupted) {
			continue
		}
		if err != nil {
			return err
		}
		err = t.change(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, family, generation,
			map[uint16]string{unix.NFTA_CHAIN_TABLE: kernel.TableName, unix.NFTA_CHAIN_NAME: c.sealFor(r.Body)})
		if !errors.Is(err, unix.ERESTART) { // the ruleset has changed since
			return explain(err, r)
		}
	}
	return errInterrupted
}

// runNFT has nft carry out a script, which is one transaction.
func (k *Kernel) runNFT(ctx context.Context, script string) error {
	program, err := k.findNFT()
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, nftTimeout)
	defer cancel()
	cmd := exec.CommandContext(bounded, program, "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	cmd.Env = []string{"LC_ALL=C"} // nothing of ours, such as NOTIFY_SOCKET
	cmd.WaitDelay = 100 * time.Millisecond
	var said output
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case bounded.Err() != nil:
		return fmt.Errorf("%s did not end within %v and was killed", program, nftTimeout)
	}
	return &explained{fmt.Sprintf("%s refused the rules: %s; uplinkd needs nft 1.0.1 or newer, and a kernel with nf_tables", program, said.complaint(err)), err}
}

// findNFT finds the program at each use: it may be installed while uplinkd runs. PATH of ordinary users and of some
// service managers lacks the directories that have it.
func (k *Kernel) findNFT() (string, error) {
	names := []string{"nft", "/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft"}
	if k.options.nft != "" {
		names = []string{k.options.nft}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", &explained{"there is no program nft: install the package nftables (1.0.1 or newer); everything else works without it", exec.ErrNotFound}
}

// output keeps the beginning of what a program writes.
type output struct{ text []byte }

func (o *output) Write(b []byte) (int, error) {
	o.text = append(o.text, b[:min(len(b), nftSays-len(o.text))]...)
	return len(b), nil
}

// complaint is the first error that nft names, without the lines that point at it; err if it names none.
func (o *output) complaint(err error) string {
	for line := range strings.Lines(string(o.text)) {
		if _, text, found := strings.Cut(line, "Error: "); found {
			return strings.Map(func(r rune) rune {
				if !unicode.IsPrint(r) {
					return -1
				}
				return r
			}, strings.TrimSpace(text))
		}
	}
	return err.Error()
}

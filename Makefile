# make demo and make test are the two to start with; "make help" lists the rest.
# They need Go, and install the Debian packages they miss when run as root (see .ci/need).
# To install: "make" as yourself, then "sudo make install"; the second needs no Go.

SHELL := /bin/bash
.DEFAULT_GOAL := build
.PHONY: build demo test bench lint fuzz test-systemd install uninstall clean help

GO ?= go
export GO # for .ci/need
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
SBINDIR = $(PREFIX)/sbin
UNITDIR = $(PREFIX)/lib/systemd/system
MANDIR = $(PREFIX)/share/man
DOCDIR = $(PREFIX)/share/doc/uplinkd
# systemd before 253 does not know Type=notify-reload and needs a drop-in. Packagers set this by hand.
SYSTEMD_VERSION ?= $(shell systemctl --version 2>/dev/null | awk 'NR == 1 { print $$2 }')

# The version is stamped here; Go's own stamping fails in a checkout that belongs to another user. The control socket
# speaks HTTP/1.1 without TLS, so HTTP/2 and quick cryptography (in assembler, without the tag purego) are left out: 0.7 MB.
# Inlining in the standard library would cost 0.6 MB; where it counts, on the way from a Reply to the address, it costs 0.1.
INLINED = runtime/... internal/... sync/... net/netip time
build: ## the program, static: build/uplinkd
	@.ci/need build
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -tags nethttpomithttp2,purego -gcflags=std=-l $(patsubst %,-gcflags=%=,$(INLINED)) \
		-ldflags '-s -w -X main.version=$(VERSION)' -o build/uplinkd ./cmd/uplinkd

demo: ## show the main job in throw-away network namespaces, in under 30 s
	@.ci/need demo
	@$(MAKE) --no-print-directory build
	@build/uplinkd demo

test: ## all tests, about five minutes; UPLINKD_NETNS=1 turns "skipped, because this machine cannot" into a failure
	@.ci/need test
	@.ci/gotest $(TESTFLAGS)

bench: build ## the figures of docs/performance.md, side by side with other clients
	@.ci/need bench
	$(GO) run ./internal/bench $(BENCHFLAGS)

lint: ## gofmt, vet, staticcheck, shellcheck, mandoc
	@.ci/need lint
	@unformatted=$$(gofmt -l cmd contrib docs hooks internal pd policy); [ -z "$$unformatted" ] || \
		{ echo "not formatted with gofmt:"; echo "$$unformatted"; exit 1; } >&2
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod staticcheck ./...
	git ls-files -z | xargs -0 awk 'FNR == 1 && /^#!\/(bin\/|usr\/bin\/env )(ba)?sh/ { print FILENAME }' | xargs shellcheck -S warning
	mandoc -T lint -W warning contrib/man/*.[1-8]

FUZZTIME ?= 10s
fuzz: ## every fuzz target for FUZZTIME (10s)
	@set -e; for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep ^Fuzz); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

test-systemd: build ## the unit file under real systemd, 252 and current, in containers; root only
	@.ci/need systemd
	contrib/systemd/test.sh

install: ## DESTDIR, PREFIX (/usr/local) and SYSCONFDIR (/etc) are honoured; an existing configuration is kept
	@[ -x build/uplinkd ] || { echo "build/uplinkd is missing: run make build first, as yourself" >&2; exit 1; }
	install -D -m 755 build/uplinkd $(DESTDIR)$(SBINDIR)/uplinkd
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|/usr/sbin/uplinkd|$(SBINDIR)/uplinkd|' contrib/systemd/uplinkd.service >$(DESTDIR)$(UNITDIR)/uplinkd.service
	chmod 644 $(DESTDIR)$(UNITDIR)/uplinkd.service
	if [ '$(SYSTEMD_VERSION)' ] && [ '$(SYSTEMD_VERSION)' -lt 253 ]; then \
		install -D -m 644 -t $(DESTDIR)$(UNITDIR)/uplinkd.service.d contrib/systemd/uplinkd.service.d/systemd-252.conf; fi
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/networkd.conf.d contrib/networkd/networkd.conf.d/uplinkd.conf
	install -D -m 644 -t $(DESTDIR)$(MANDIR)/man8 contrib/man/uplinkd.8
	install -d $(DESTDIR)$(MANDIR)/man5
	sed 's|/usr/share/doc/uplinkd|$(DOCDIR)|' contrib/man/uplinkd.toml.5 >$(DESTDIR)$(MANDIR)/man5/uplinkd.toml.5
	chmod 644 $(DESTDIR)$(MANDIR)/man5/uplinkd.toml.5
	install -D -m 644 -t $(DESTDIR)$(DOCDIR) README.md LICENSE
	install -D -m 644 -t $(DESTDIR)$(DOCDIR)/docs docs/*.md
	install -D -m 644 -t $(DESTDIR)$(DOCDIR)/contrib contrib/uplinkd.toml
	install -D -m 644 -t $(DESTDIR)$(DOCDIR)/contrib/systemd contrib/systemd/hooks-as-root.conf
	install -D -m 755 -t $(DESTDIR)$(DOCDIR)/contrib/hooks contrib/hooks/*
	install -D -m 644 -t $(DESTDIR)$(DOCDIR)/contrib/anyip $(filter-out %_test.go,$(wildcard contrib/anyip/*.go))
	[ -e $(DESTDIR)$(SYSCONFDIR)/uplinkd/uplinkd.toml ] || \
		install -D -m 644 -t $(DESTDIR)$(SYSCONFDIR)/uplinkd contrib/uplinkd.toml

uninstall: ## remove what install put there, but not the configuration and the state
	rm -f $(DESTDIR)$(SBINDIR)/uplinkd $(DESTDIR)$(UNITDIR)/uplinkd.service $(DESTDIR)$(UNITDIR)/uplinkd.service.d/systemd-252.conf
	rm -f $(DESTDIR)$(PREFIX)/lib/systemd/networkd.conf.d/uplinkd.conf
	rm -f $(DESTDIR)$(MANDIR)/man8/uplinkd.8 $(DESTDIR)$(MANDIR)/man5/uplinkd.toml.5
	rm -rf $(DESTDIR)$(DOCDIR)
	for dir in $(DESTDIR)$(UNITDIR)/uplinkd.service.d $(DESTDIR)$(PREFIX)/lib/systemd/networkd.conf.d; do \
		[ ! -d $$dir ] || rmdir --ignore-fail-on-non-empty $$dir; done

clean: ## remove build/
	rm -rf build

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

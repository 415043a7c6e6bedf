# One entry point for each thing a person does; CI calls the same targets. Everything here needs Rust and a C compiler;
# what needs more is named when it is skipped (CI=true turns a skip into a failure).

# debug: builds quickly, runs slowly. make demo PROFILE=debug
PROFILE ?= release
SEEDS ?= 1..2001
# The scenario that make sim runs: stores or mesh; empty: both, and the canary.
SCENARIO ?=
# What make cross builds for.
CROSS_TARGETS := aarch64-unknown-linux-musl x86_64-unknown-linux-musl
TARGET ?= aarch64-unknown-linux-musl
# Where make install puts things.
PREFIX ?= /usr/local
OUT := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
NODE := $(OUT)/$(PROFILE)/peat-node
AS_PROFILE := $(if $(filter release,$(PROFILE)),--release)
BUILD := cargo build --locked --bin peat-node $(AS_PROFILE)

.DEFAULT_GOAL := help
.PHONY: help build run demo demo-fleet test nightly sim bench bench-hub fmt lint docs deny cross image packages repo install install-files uninstall

help: ## show this
	@echo 'make TARGET, where TARGET is'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the node
	$(BUILD)

run: build ## start one node on its defaults, as this user, until Ctrl-C
	@echo 'When it says "ready", type in another terminal:'
	@echo '  $(NODE) put platforms a1 '"'"'{"name": "first"}'"'"
	@echo '  $(NODE) watch --snapshot'
	@echo '  $(NODE) --help'
	@exec $(NODE) run

demo: build ## show the main job with three nodes; ends by itself (KEEP=1 leaves them up)
	@tests/demo/run $(NODE)

demo-fleet: build ## show a hub, two edges with agents, a tablet carried between them; wants ip and root (KEEP=1 too)
	cargo build --locked -p peat-ipc --example agent $(AS_PROFILE)
	@tests/demo/fleet $(NODE) $(OUT)/$(PROFILE)/examples

cross: ## build one static binary: TARGET=aarch64-unknown-linux-musl (the default) or x86_64-unknown-linux-musl
	@cross/build $(TARGET)

image: ## write the image of both architectures to target/cross/peat-node-image.tar; docker load and podman load take it
	@for target in $(CROSS_TARGETS); do cross/build $$target || exit 1; done
	@cross/image $(OUT)/cross/peat-node-image.tar amd64=$(OUT)/cross/image/amd64/peat-node arm64=$(OUT)/cross/image/arm64/peat-node
	@echo '$(OUT)/cross/peat-node-image.tar'

packages: ## write deb and rpm of both architectures to target/packages
	cargo run --locked --quiet --example pages -- $(OUT)/pages
	@for target in $(CROSS_TARGETS); do cross/build $$target || exit 1; done
	@for architecture in amd64 arm64; do \
	    cross/packages/build $(OUT)/cross/image/$$architecture/peat-node $$architecture $(OUT)/pages $(OUT)/packages || exit 1; done

repo: ## write signed APT and DNF repositories of target/packages: DIR=DIR KEY=ID URL=https://…
	@cross/packages/repo $(OUT)/packages $(if $(DIR),$(DIR),$(error make repo DIR=DIR))

install: build install-files ## put program, units and pages under PREFIX (/usr/local), as root; DESTDIR=DIR for packages

# Without building: NODE=FILE is what is installed. PAGES=DIR: man page, completions and example settings, as the example `pages` wrote
# them.
ZSH_COMPLETIONS ?= $(PREFIX)/share/zsh/site-functions
install-files:
	install -D -m 755 $(NODE) $(DESTDIR)$(PREFIX)/bin/peat-node
	install -D -m 644 cross/systemd/peat-node.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/peat-node.conf
	install -D -m 644 cross/systemd/peat-node.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/peat-node.conf
	install -D -m 644 cross/systemd/peat-node.socket $(DESTDIR)$(PREFIX)/lib/systemd/system/peat-node.socket
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed -e 's,@BIN@,$(PREFIX)/bin,' -e 's,@DOC@,$(PREFIX)/share/doc/peat-node,' cross/systemd/peat-node.service \
	    > $(DESTDIR)$(PREFIX)/lib/systemd/system/peat-node.service
	chmod 644 $(DESTDIR)$(PREFIX)/lib/systemd/system/peat-node.service
	install -d $(DESTDIR)$(PREFIX)/share/doc/peat-node
	install -m 644 LICENSE $(wildcard docs/*.md) cross/systemd/shared-key.conf $(DESTDIR)$(PREFIX)/share/doc/peat-node
ifneq ($(PAGES),)
	install -D -m 644 $(PAGES)/peat-node.1 $(DESTDIR)$(PREFIX)/share/man/man1/peat-node.1
	install -D -m 644 $(PAGES)/peat-node.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/peat-node
	install -D -m 644 $(PAGES)/peat-node.zsh $(DESTDIR)$(ZSH_COMPLETIONS)/_peat-node
	install -D -m 644 $(PAGES)/peat-node.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/peat-node.fish
	install -D -m 644 $(PAGES)/settings $(DESTDIR)$(PREFIX)/share/doc/peat-node/examples/settings
endif

uninstall: ## take away what install put there; data in /var/lib/peat-node and settings in /etc/peat-node stay
	rm -f $(DESTDIR)$(PREFIX)/bin/peat-node
	rm -f $(DESTDIR)$(PREFIX)/lib/sysusers.d/peat-node.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/peat-node.conf
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/lib/systemd/system/peat-node.,service socket)
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/share/,man/man1/peat-node.1 bash-completion/completions/peat-node fish/vendor_completions.d/peat-node.fish)
	rm -f $(DESTDIR)$(ZSH_COMPLETIONS)/_peat-node
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/peat-node

test: ## run every check but the nightly ones; the last line counts them
	@tests/all

nightly: ## run the checks that are slow and rarely break; CI=true fails where a tool is missing
	@tests/all nightly

# Optimised, as the node itself is not while it is tested: twice to three times the seeds in the same time. Dependencies are the same.
sim: ## run the simulator long: SEEDS=1..2001, or single seeds, 7,12; SCENARIO=stores or mesh
	PEAT_SIM_SEEDS=$(SEEDS) CARGO_PROFILE_DEV_OPT_LEVEL=1 cargo test --locked --features fault-injection --test sim -- --nocapture $(SCENARIO)

bench: ## measure, beside what it is compared with, in one table; wants a quiet machine (ARGS=--quick)
	cargo build --locked --release --bin peat-node
	cargo build --locked --release --bin peat-node --no-default-features --target-dir $(OUT)/without-http
	cargo run --locked --release --manifest-path tests/bench/Cargo.toml -- --node $(OUT)/release/peat-node \
	    --without-http $(OUT)/without-http/release/peat-node $(ARGS)

bench-hub: ## measure the hub kit; wants Go, PostgreSQL and a quiet machine
	cargo build --locked --release --bin peat-node
	@tests/hub/bench $(OUT)/release/peat-node

fmt: ## format the code
	cargo fmt --all

lint: ## clippy, warnings denied; the language of comments and pages (tests/words)
	@tests/words test
	@tests/words
	cargo clippy --locked --workspace --all-targets --features fault-injection -- -D warnings

docs: ## build the code's documentation, warnings denied
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items

deny: ## licences, banned crates and sources of what is linked
	cargo deny --locked --all-features --config cross/deny.toml check --hide-inclusion-graph licenses bans sources

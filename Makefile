# One entry point for each thing a person does; CI calls the same targets. Everything here needs Rust and a C compiler;
# what needs more is named when it is skipped (CI=true turns a skip into a failure).

# debug: builds quickly, runs slowly. make demo PROFILE=debug
PROFILE ?= release
SEEDS ?= 1..1001
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
NODE := $(TARGET)/$(PROFILE)/peat-node
AS_PROFILE := $(if $(filter release,$(PROFILE)),--release)
BUILD := cargo build --locked --bin peat-node $(AS_PROFILE)

.DEFAULT_GOAL := help
.PHONY: help build run demo demo-fleet test sim bench fmt lint docs deny

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
	@tests/demo/fleet $(NODE) $(TARGET)/$(PROFILE)/examples

test: ## run every check; the last line counts them
	@tests/all

sim: ## run the simulator long: SEEDS=1..1001, or single seeds, 7,12
	PEAT_SIM_SEEDS=$(SEEDS) cargo test --locked --features planted --test sim -- --nocapture

bench: ## measure, beside what it is compared with, in one table; wants a quiet machine (ARGS=--quick)
	cargo build --locked --release --bin peat-node
	cargo run --locked --release --manifest-path tests/bench/Cargo.toml -- --node $(TARGET)/release/peat-node $(ARGS)

fmt: ## format the code
	cargo fmt --all

lint: ## clippy, warnings denied
	cargo clippy --locked --workspace --all-targets --features planted -- -D warnings

docs: ## build the code's documentation, warnings denied
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items

deny: ## licences, banned crates and sources of what is linked
	cargo deny --locked --all-features --config cross/deny.toml check --hide-inclusion-graph licenses bans sources

# The two commands of README.md are `run` and `test`; CONTRIBUTING.md lists the others.

HOST := $(shell rustc -vV | sed -n 's/^host: //p')
AGENT := target/$(HOST)/agent/oncebox-agent
# The profile of the program that builds the images. `make test` uses the program that its tests run, and builds no other.
PROFILE := release
# `make test` builds in silence; everything else shows its progress.
QUIET :=

.PHONY: run test test-all test-hosts test-sdk test-mcp test-letta abuse soak check agent images engine bench server-image

run: images ## Build what is missing and serve on 127.0.0.1:3000.
	target/release/oncebox serve

test: ## Run every suite on the real engine. The last line is `N passed, M failed`.
	@scripts/test

test-all: ## Run also the tests that take long and are seldom news, and all SDK and Letta tests in every way.
	@TEST_ALL=1 scripts/test

test-hosts: images ## Run the tests that depend on the host on other hosts, and write docs/hosts.md. Needs root.
	@scripts/test-hosts

test-sdk: images ## Run the published E2B SDKs against a server of this program.
	@scripts/sdk

test-mcp: images ## Run the official Python client of the Model Context Protocol against servers of this program.
	@scripts/mcp

test-letta: images ## Run Letta's own package, and the calls of its older versions, against a server of this program.
	@scripts/letta

check: ## Check format, lints and docs, and run the tests that need no engine.
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --test soak -- -D warnings
	cargo clippy --no-default-features --bin oncebox-agent -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet
	cargo test --lib --bins --test http --quiet
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check bans licenses sources; \
	  else echo "cargo deny is not installed: the licences and sources of the crates were not checked."; fi

agent: ## Build the agent. It is linked statically, so that it runs in any image.
	RUSTFLAGS="-C target-feature=+crt-static" cargo build $(QUIET) --profile agent --no-default-features \
	  --bin oncebox-agent --target $(HOST)

images: engine agent ## Build the images that are missing or outdated.
	cargo build $(QUIET) $(if $(filter release,$(PROFILE)),--release)
	target/$(PROFILE)/oncebox images build --agent $(AGENT)

server-image: images ## Build `oncebox/server`: this program in a container, for docs/letta/compose.yaml.
	tar --create --directory docs/letta Dockerfile --directory $(CURDIR)/target/$(PROFILE) oncebox | docker build --tag oncebox/server -

engine: ## Make sure that a Docker Engine answers.
	@scripts/engine

bench: images ## Measure the latency per language, beside `docker run` and the bare engine.
	cargo bench --bench latency

abuse: images ## Run hostile and careless code, and write docs/abuse.md.
	ABUSE_REPORT=docs/abuse.md cargo test --test abuse -- --include-ignored

# For a short trial: make soak SOAK_RUNS=300 SOAK_LIFE_SECONDS=300 SOAK_KILLS=5
soak: images ## 20,000 runs, one hour with one sandbox, 200 kills; write docs/soak.md and docs/kills.md.
	cargo test --release --test soak

# The two commands of README.md are `run` and `test`; CONTRIBUTING.md lists the others.

HOST := $(shell rustc -vV | sed -n 's/^host: //p')
AGENT := target/$(HOST)/agent/oncebox-agent
# The program that builds the images: `make test` takes the one that its tests run, and builds no other.
PROFILE := release
# `make test` builds in silence; everything else shows its progress.
QUIET :=

.PHONY: run test test-hosts test-sdk test-letta abuse soak check agent images engine bench server-image

run: images ## Build what is missing and serve on 127.0.0.1:3000.
	target/release/oncebox serve

test: ## Everything there is to test, on the real engine; ends with `N passed, M failed`.
	@scripts/test

test-hosts: images ## What depends on the host, on other versions of Docker; into docs/hosts.md. Only root can.
	@scripts/test-hosts

test-sdk: images ## The published SDKs of E2B against a server of this program.
	@scripts/sdk

test-letta: images ## Letta's own package, and what its older versions call, against a server of this program.
	@scripts/letta

check: ## Format, lints, docs and the tests that need no engine.
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --test soak -- -D warnings
	cargo clippy --no-default-features --bin oncebox-agent -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet
	cargo test --lib --bins --test http --quiet
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check bans licenses sources; \
	  else echo "cargo deny is not installed, so that licences and sources of the crates were not checked."; fi

agent: ## The agent, static, so that it runs in any image.
	RUSTFLAGS="-C target-feature=+crt-static" cargo build $(QUIET) --profile agent --no-default-features \
	  --bin oncebox-agent --target $(HOST)

images: engine agent ## The images that are missing or not current.
	cargo build $(QUIET) $(if $(filter release,$(PROFILE)),--release)
	target/$(PROFILE)/oncebox images build --agent $(AGENT)

server-image: images ## `oncebox/server`: this program in a container, for docs/letta/compose.yaml.
	tar --create --directory docs/letta Dockerfile --directory $(CURDIR)/target/$(PROFILE) oncebox | docker build --tag oncebox/server -

engine: ## A Docker Engine that answers.
	@scripts/engine

bench: images ## Latency per language, beside `docker run` and the bare engine.
	cargo bench --bench latency

abuse: images ## Hostile and careless code, and what holds; into docs/abuse.md.
	ABUSE_REPORT=docs/abuse.md cargo test --test abuse

soak: images ## 20,000 runs, an hour of one sandbox, 200 kills, into docs/soak.md and docs/kills.md. SOAK_RUNS=300 SOAK_LIFE_SECONDS=300 SOAK_KILLS=5 is a try.
	cargo test --release --test soak

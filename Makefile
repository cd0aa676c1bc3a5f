# gpudiag. `make` alone lists what can be done. Everything lives in .venv and in the user's cache; nothing is
# installed elsewhere.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RELEASE := $(VENV)/.release

.DEFAULT_GOAL := help
.PHONY: help demo up test test-all lint format generate requirements soak fuzz bench conformance evals evals-up audit wheel images e2e clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY)  ## Watch it work: a control plane, six GPU nodes, a fault, a dead agent, recovery (ends by itself)
	@$(BIN)/kubectl-gpudiag demo

up: $(READY)  ## The same cluster, left running for you to try; Ctrl-C ends it
	@$(BIN)/kubectl-gpudiag up

test: $(READY)  ## Unit and cluster tests on a real API server, with coverage
	@$(BIN)/python tools/run_tests.py quick

test-all: $(READY)  ## The slow suites and end to end
	@$(BIN)/python tools/run_tests.py slow

lint: $(READY)  ## ruff, mypy strict, import-linter, generated files, workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/generate.py --check
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yaml
	$(BIN)/zizmor --offline --quiet .github/workflows

format: $(READY)  ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: $(READY)  ## Write the generated files (CRDs) from the models
	$(BIN)/python tools/generate.py

soak: $(READY)  ## Faults around the operator by seed: make soak SEEDS=1-50 WORKERS=4
	@$(BIN)/python -m tests.cluster.soak --workers $(or $(WORKERS),1) $(or $(SEEDS),34-43)

fuzz: $(READY)  ## Parsers under atheris, each for EACH seconds: make fuzz EACH=300
	@$(BIN)/python -m tests.fuzz --seconds $(or $(EACH),60)

bench: $(READY)  ## Measure against floors taken in the same run; writes build/bench/*.json
	$(BIN)/python -m tests.bench

conformance: $(READY)  ## The official MCP conformance suite on both wires (installs Node 22 from npm once)
	$(BIN)/python -m tests.conformance.run

evals: $(READY)  ## Twenty questions of an on-call engineer; writes docs/evals.md and a transcript
	@$(BIN)/python -m tests.evals

evals-up: $(READY)  ## The fleet of these questions, left running for a model; Ctrl-C ends it
	@$(BIN)/python -m tests.evals up

audit: $(RELEASE)  ## Advisories about what is pinned, and secrets in the history (needs Go and the network)
	@for part in agent operator mcp dev release; do echo "requirements/$$part.txt"; \
	  $(BIN)/pip-audit --require-hashes --disable-pip --strict --progress-spinner off -r requirements/$$part.txt || exit 1; done
	go run github.com/zricethezav/gitleaks/v8@v8.30.1 git --no-banner --redact .

wheel: $(RELEASE)  ## The wheel and the source archive, into dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/twine check --strict dist/*

images: $(READY)  ## The three images and what is in them (SBOM), with docker, podman or buildah (ENGINE, BASE_IMAGE, PIP_CONFIG, CA)
	@$(BIN)/python -m tools.images $(if $(ENGINE),--engine $(ENGINE)) $(if $(BASE_IMAGE),--base-image $(BASE_IMAGE)) \
	  $(if $(PIP_CONFIG),--pip-config $(PIP_CONFIG)) $(if $(CA),--ca $(CA))

e2e: $(READY)  ## On real kubelets: CLUSTER=KUBECONFIG, else kind (Docker), else a one-node cluster made here (root)
	@$(BIN)/python -m pytest -m e2e -o faulthandler_timeout=900 --durations=0 --durations-min=5 $(if $(CLUSTER),--kubeconfig=$(CLUSTER)) tests/e2e

requirements: $(READY)  ## Pin the requirements anew, with hashes
	@for part in agent operator mcp "agent operator mcp cli dev"; do \
	  file=requirements/$${part##* }.txt; echo "$$file"; \
	  $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url \
	    --no-emit-trusted-host --no-emit-find-links --no-header --no-annotate --upgrade \
	    $$(printf -- '--extra %s ' $$part) --output-file $$file pyproject.toml; \
	done
	@$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url \
	  --no-emit-trusted-host --no-emit-find-links --no-header --no-annotate --upgrade --extra release \
	  --output-file requirements/release.txt pyproject.toml

clean:  ## Remove the virtual environment and build results
	rm -rf $(VENV) build dist .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(READY): pyproject.toml requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit("gpudiag needs Python 3.11 or newer; run make PYTHON=python3.11 …" if sys.version_info < (3, 11) else 0)'
	@echo "Installing into $(VENV) (about a minute the first time)"
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: install your system's python3-venv package"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

$(RELEASE): $(READY) requirements/release.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/release.txt
	@touch $@

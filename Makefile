# One name per habit. `make test` is what CI runs; `make help` lists the rest.
# The virtual environment is made, and kept up to date, by whatever needs it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV   := .venv
VLLM   := .venv-vllm
BIN    := $(VENV)/bin
# the first Python that is new enough; the locks are made for 3.11
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check
LOCK := $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.PHONY: help setup demo test test-vllm test-transformers test-ollama lint format goldens bench lock clean

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
		|| sed -nE 's/^([a-z-]+):.*## (.*)/  make \1  \2/p' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime  ## set up and run the main job: decide, score and compare
	@$(BIN)/align-dsl run programs/mta.yaml

test: lint  ## set up and run every check: style, types, floors, tests (what CI runs)
	$(BIN)/pytest -q -n 2

test-vllm: $(VENV)/.dev $(VLLM)/.installed  ## the tests of real servers, on a real vLLM (CPU; 3.5 GB the first time)
	$(BIN)/python -m tests.servers.vllm --python $(VLLM)/bin/python

test-transformers: $(VENV)/.dev $(VLLM)/serving/.installed  ## the tests of a server that ignores schemas, on a real `transformers serve`
	$(BIN)/python -m tests.servers.transformers --python $(VLLM)/bin/python

test-ollama: $(VENV)/.dev  ## the tests of real servers, on the Ollama that answers at OLLAMA_HOST
	$(BIN)/python -m tests.servers.ollama

setup: $(VENV)/.dev  ## the virtual environment with everything a developer needs

lint: $(VENV)/.dev  ## style, types and the import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## rewrite the code in the one style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

goldens: $(VENV)/.dev  ## rewrite expected outputs; read the diff before you commit it
	UPDATE_EXPECT=1 $(BIN)/pytest -q tests

bench: $(VENV)/.dev  ## measure how long align-dsl takes to start
	$(BIN)/python benchmarks/startup.py

lock: $(VENV)/.dev  ## resolve the dependencies of pyproject.toml afresh into both locks
	$(INSTALL) pip-tools
	$(LOCK) --upgrade --extra dev --output-file requirements-dev.txt pyproject.toml
	sed -e '/--hash/d' -e 's/ \\$$//' -e '/^ *#/d' requirements-dev.txt > $(VENV)/pins.txt
	$(LOCK) --upgrade --extra build --constraint $(VENV)/pins.txt --no-annotate \
		--output-file requirements.txt pyproject.toml

clean:  ## delete the virtual environment and all caches
	rm -rf $(VENV) $(VLLM) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/pyvenv.cfg:
	@test -n '$(PYTHON)' || { echo 'align-dsl needs Python 3.11 or newer' >&2; exit 1; }
	@'$(PYTHON)' -m venv $(VENV)

# A stamp is newer than the lock it was made from, or it is made again.
$(VENV)/.runtime: requirements.txt pyproject.toml | $(VENV)/pyvenv.cfg
	@echo 'installing into $(VENV); the first time takes a minute or two' >&2
	@$(INSTALL) --require-hashes --requirement $<
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.txt pyproject.toml | $(VENV)/pyvenv.cfg
	@echo 'installing into $(VENV); the first time takes a minute or two' >&2
	@$(INSTALL) --require-hashes --requirement $<
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# torchvision and its kind come built for CUDA, and then vLLM does not start
$(VLLM)/.installed: tests/servers/vllm-requirements.txt
	@test -n '$(PYTHON)' || { echo 'align-dsl needs Python 3.11 or newer' >&2; exit 1; }
	@echo 'installing vLLM into $(VLLM); it takes some minutes and 3.5 GB' >&2
	@'$(PYTHON)' -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install -qq --disable-pip-version-check --requirement $<
	@$(VLLM)/bin/python -m pip uninstall -qq --yes torchvision torchaudio torchcodec
	@touch $@

# beside vLLM, not in it: with it, transformers may load models otherwise
$(VLLM)/serving/.installed: $(VLLM)/.installed
	@$(VLLM)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --upgrade \
		--target $(VLLM)/serving accelerate==1.15.0
	@touch $@

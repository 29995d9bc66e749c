# Everything here sets itself up: a Python >= 3.11 and make are enough.

VENV ?= .venv
BIN := $(VENV)/bin
VERSIONS ?= 3.11 3.12 3.13 3.14
PYENV_ROOT ?= $(HOME)/.pyenv
ARGS ?=
# How `check` runs the tests: test or coverage.
TESTS ?= test

export PIP_DISABLE_PIP_VERSION_CHECK := 1
MAKEFLAGS += --no-print-directory

# A name on PATH proves nothing (a pyenv shim may stand there for a version that is not active), so
# candidates are tried by running them.
on_path = $(wildcard $(addsuffix /$1,$(subst :, ,$(PATH))))
first = $(shell for python in $2; do $$python -c 'import sys, ensurepip, venv; sys.exit($1)' \
	>/dev/null 2>&1 && echo $$python && break; done)
# The interpreter of one version: pyenv's own if there is one, else the one on PATH.
exact = $(call first,"%d.%d" % sys.version_info[:2] != "$1",\
	$(wildcard $(PYENV_ROOT)/versions/$1.*/bin/python$1) $(call on_path,python$1))

PYTHON ?= $(call first,sys.version_info < (3, 11),\
	$(foreach name,python3.14 python3.13 python3.12 python3.11 python3,$(call on_path,$(name))))

.DEFAULT_GOAL := help
.NOTPARALLEL: # the targets share one environment
.PHONY: help demo test test-all coverage check format format-check lint types imports docs docs-test \
	bench matrix faults soak fuzz clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-zX0-9.-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.stamp-run ## show what Sidestage does
	$(BIN)/python -m sidestage.demo

check: format-check lint types imports $(TESTS) docs-test ## all that must pass before a commit; check-3.12: on that version

test: $(VENV)/.stamp-test ## run the tests; ARGS="-k name -x" goes to pytest
	$(BIN)/python -m pytest $(ARGS)

# The floor is in pyproject.toml, and holds for the whole suite only.
coverage: $(VENV)/.stamp-test ## run the tests and count branches, in child processes too; ARGS as for test
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n 2 $(ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report $(if $(ARGS),--fail-under=0)

docs-test: $(VENV)/.stamp-test ## run the examples in README.md and docs/
	$(BIN)/python -m pytest README.md docs

format: $(VENV)/.stamp-lint ## format the code and sort its imports
	$(BIN)/ruff check --select I --fix-only .
	$(BIN)/ruff format .

format-check: $(VENV)/.stamp-lint ## is the code formatted?
	$(BIN)/ruff format --check --diff .

lint: $(VENV)/.stamp-lint ## ruff
	$(BIN)/ruff check .

types: $(VENV)/.stamp-lint $(VENV)/.stamp-test ## mypy and pyright, both strict
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

imports: $(VENV)/.stamp-lint ## the import contracts
	$(BIN)/lint-imports

docs: $(VENV)/.stamp-docs ## build the documentation; a warning is an error
	$(BIN)/sphinx-build -n -W --keep-going docs docs/_build/html

bench: $(VENV)/.stamp-bench ## measure starting, serving, stopping and growth beside the peers
	$(BIN)/python benchmarks/bench.py $(ARGS)

# The peers run on one version; that they do not depend on ours is what they are there to show.
matrix: found = $(strip $(foreach version,$(VERSIONS),$(if $(call exact,$(version)),$(version))))
matrix: ## run the hostile tests, the peers too, and write docs/compatibility.md
	mkdir -p build
	@$(foreach version,$(found),$(MAKE) matrix-$(version) &&) true
	$(BIN)/python docs/matrix.py $(foreach version,$(found),build/matrix-$(version).json)

matrix-3.%: $(VENV)/.stamp-venv
	mkdir -p build
	$(MAKE) test-3.$* ARGS="tests/hostile -n 2 --matrix=build/matrix-3.$*.json \
		$(if $(filter 3.12,3.$*),--peers)"

faults: $(VENV)/.stamp-test ## write the tables of docs/faults.md and docs/bad-tls.md: what clients say
	PYTHONPATH=tests $(BIN)/python -m kit.faulty_clients
	PYTHONPATH=tests $(BIN)/python -m kit.bad_tls_clients

soak: $(VENV)/.stamp-test ## wear servers out for twenty minutes: cycles, kills, load
	$(BIN)/python benchmarks/soak.py $(ARGS)

fuzz: $(VENV)/.stamp-test ## feed all readers of bytes a million hostile inputs: some minutes
	PYTHONPATH=tests $(BIN)/python -m fuzz $(ARGS)

# test-3.12, check-3.12, coverage-3.12: the same on one version, in a .venv-3.12 of its own
test-3.% check-3.% coverage-3.%:
	$(if $(call exact,3.$*),,$(error No Python 3.$* found, by pyenv or on PATH))
	$(MAKE) $(@:-3.$*=) VENV=.venv-3.$* PYTHON=$(call exact,3.$*)

test-all: found = $(strip $(foreach version,$(VERSIONS),$(if $(call exact,$(version)),$(version))))
test-all: ## run the tests on each of VERSIONS found here; test-3.12: on that one
	@$(foreach version,$(found),$(MAKE) test-$(version) &&) \
	echo "Tests ran on: $(or $(found),none). Not found here: $(or $(filter-out $(found),$(VERSIONS)),none)."

clean: ## remove all that the other targets made
	rm -rf .venv .venv-3.* build dist docs/_build htmlcov .coverage .coverage.*
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One group of dependencies each, installed when first needed and when pyproject.toml changes.
$(VENV)/.stamp-venv:
	$(if $(PYTHON),,$(error No Python >= 3.11 found on PATH. Name one: make PYTHON=/path/to/python))
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.stamp-run: pyproject.toml $(VENV)/.stamp-venv
	$(BIN)/python -m pip install --quiet --editable '.[tls]'
	touch $@

$(VENV)/.stamp-%: pyproject.toml $(VENV)/.stamp-venv
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

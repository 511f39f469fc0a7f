# Every target sets itself up in .venv from nothing but make and Python 3.11 or newer.

MAKEFLAGS += --no-print-directory
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Where it is set, every process of the tests compiles all of the package and the tests again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; \
	$(BIN)/python -m pip install --quiet --constraint .venv/constraints.txt --editable
PINS := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["tool"]["uv"]["constraint-dependencies"], sep="\n")

OLDEST := import re, tomllib; print(*(re.sub(">=", "==", one.split(",")[0]) for one in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]), sep="\n")

# uv may share .venv: it makes one without pip, and its sync takes away what only the tests need.
ifeq ($(wildcard $(BIN)/nanobanana),)
$(shell rm -f .venv/installed)
endif
ifeq ($(wildcard $(BIN)/pytest),)
$(shell rm -f .venv/installed-dev)
endif

.PHONY: check demo test quick lint types newest oldest storm bench clean

check: lint types test

demo: .venv/installed
	@$(BIN)/nanobanana demo

test: .venv/installed-dev
	@$(BIN)/pytest -q --numprocesses auto --dist worksteal

quick: .venv/installed-dev
	@$(BIN)/pytest -q --numprocesses auto --dist worksteal -m 'not slow'

lint: .venv/installed-dev
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo "Not formatted; .venv/bin/ruff format does it."; exit 1; }

types: .venv/installed-dev
	@$(BIN)/mypy

# The quick tests with the newest dependencies within their bounds, and with the oldest that the bounds allow.
newest: | $(BIN)/python
	@: > .venv/newest.txt
	@$(MAKE) .venv/tried LANE=newest

oldest: | $(BIN)/python
	@$(BIN)/python -c '$(OLDEST)' > .venv/oldest.txt
	@$(MAKE) .venv/tried LANE=oldest

.PHONY: .venv/tried
.venv/tried:
	@rm -rf .venv/$(LANE) && $(BIN)/python -m venv .venv/$(LANE)
	@.venv/$(LANE)/bin/python -m pip install --quiet --constraint .venv/$(LANE).txt --editable '.[dev]'
	@.venv/$(LANE)/bin/python -m pytest -q --numprocesses auto --dist worksteal -m 'not slow' -p no:cacheprovider

storm: .venv/installed-dev
	@$(BIN)/python -m tests.support.storm $(STORM)

bench: .venv/installed-dev
	@$(BIN)/python -m benchmarks $(BENCH)

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/installed: .venv/constraints.txt
	@echo "Installing into .venv (once; about a minute) ..."
	@$(INSTALL) .
	@touch $@

.venv/installed-dev: .venv/constraints.txt
	@echo "Installing into .venv, with what the tests need (once; about a minute) ..."
	@$(INSTALL) '.[dev]'
	@touch .venv/installed $@

.venv/constraints.txt: pyproject.toml | $(BIN)/python
	@$(BIN)/python -c '$(PINS)' > $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and none was found; install it, or name one: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: its ensurepip or venv is missing. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	@$(PYTHON) -m venv .venv

# Everything runs in .venv, which the first call makes from requirements.lock. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH := $(VENV)/.bench
UV := $(VENV)/uv/bin/uv

# What the lock covers: all that `make train`, `make test` and `make check` need.
LOCKED := fast train data rl dev

# Tests run in a process for each core, those of a file in one.
SIDE_BY_SIDE := -n auto --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help train test test-all check bench lock clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

train: $(READY)  ## the paper's sinusoid experiment, its four systems, into runs/sinusoid
	$(BIN)/tinymaml train sinusoid --method maml fomaml pretrained oracle --out runs/sinusoid

test: $(READY)  ## the tests, without the slow ones
	$(BIN)/python -m pytest -m "not slow" $(SIDE_BY_SIDE)

test-all: $(READY)  ## all tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

check: $(READY)  ## style, types, layering
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(BENCH)  ## the benchmarks against PyTorch and JAX, which are installed for it; into runs/bench.json and .png
	@mkdir -p runs
	$(BIN)/python -m bench --json runs/bench.json --picture runs/bench.png

lock: $(UV)  ## write requirements.lock anew, with the newest versions that pyproject.toml allows
	$(UV) pip compile pyproject.toml $(LOCKED:%=--extra %) --output-file requirements.lock --quiet --upgrade --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock"

clean:  ## take away .venv, builds and caches (runs/ stays)
	rm -rf $(VENV) build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.lock pyproject.toml setup.py
	@command -v "$(PYTHON)" >/dev/null || { echo "make: '$(PYTHON)' not found: tinymaml needs Python 3.11 or newer, name one with 'make PYTHON=...'" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: $(PYTHON) is $$("$(PYTHON)" -V 2>&1), but tinymaml needs Python 3.11 or newer: name one with 'make PYTHON=...'" >&2; exit 1; }
	@echo "Setting up $(VENV) from requirements.lock (once, a minute or so) ..."
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(BENCH): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check --no-build-isolation -e '.[bench]'
	-$(BIN)/python -m pip install --disable-pip-version-check --no-deps higher==0.2.1 torchopt==0.7.3 optree graphviz
	@touch $@

$(UV):
	"$(PYTHON)" -m venv $(VENV)/uv
	$(VENV)/uv/bin/python -m pip install --quiet --disable-pip-version-check uv

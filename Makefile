# On a machine with only Python and make, each target creates .venv and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo demo-secure test soak lint torch bench clean

install: .venv/installed
demo: .venv/installed
	$(BIN)/shoal demo hospitals
demo-secure: .venv/installed  # the same with secure sums: the server sees no hospital's own result
	$(BIN)/shoal demo hospitals --secure
test: .venv/developed
	$(BIN)/pytest -n auto
soak: .venv/developed  # every fault of a network, on SQLite and PostgreSQL, for half an hour
	$(BIN)/pytest -m soak tests/chaos
lint: .venv/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright
torch: .venv/with-torch  # what the tests of torch models and `make bench` need beside the rest: 200 MB, CPU only
bench: .venv/with-torch
	$(BIN)/python -m benchmarks engine
	$(BIN)/python -m benchmarks network
	$(BIN)/python -m benchmarks secure
	$(BIN)/python -m benchmarks privacy
clean:
	rm -rf .venv .jax_cache

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Shoal needs Python 3.11 or newer; try  make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[plot,sklearn]'
	touch $@
.venv/developed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@
.venv/with-torch: .venv/developed
	$(BIN)/python -m pip install --quiet 'torch==2.13.0'
	touch $@

# Everything runs from .venv, which the targets make by themselves: `make help` lists them.
# Needs only Python 3.11 or newer with pip, and make.

# The interpreter that makes .venv: the first that is new enough. Override: make PYTHON=python3.13 ...
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,$(if $(shell \
	$(p) -c 'import sys; print("ok" * (sys.version_info >= (3, 11)))' 2>/dev/null),$(p))))
# More arguments for what a target runs: make test ARGS='-k signature -x'; make serve ARGS=app:hooks
ARGS ?=
# Test processes: a number, or auto for one per core.
JOBS ?= auto
# make lock UPGRADE=1 takes the newest versions; without it those locked stay where they still fit.
UPGRADE ?=

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
UV := UV_SYSTEM_CERTS=1 $(BIN)/uv
SYNC := $(UV) pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode
# The project itself: its build backend is in the locks, so nothing unhashed is fetched to build it.
EDITABLE := $(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .

# Without byte code each run would compile every dependency again.
unexport PYTHONDONTWRITEBYTECODE
# Whatever environment the caller is in, commands here use .venv.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH

.PHONY: help demo serve test test-full coverage check lint types layers wheel audit bench bench-sdk bench-overload bench-replay bench-start bench-growth lock format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.run ## set up, then receive, retry, bury and replay real deliveries; ends by itself
	@$(BIN)/animica-hooks demo $(ARGS)

serve: .venv/.run ## set up, then receive deliveries on this machine and show them
	@$(BIN)/animica-hooks serve $(ARGS)

test: .venv/.dev ## set up, then run all the tests
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-full: export ANIMICA_HOOKS_TEST_SIZE = full
test-full: export PYTEST_ADDOPTS += -o faulthandler_timeout=3600
test-full: test ## the tests with crash and fuzz runs of full size (long)

coverage: .venv/.dev ## the tests, with branch coverage
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --cov --cov-report=term $(ARGS)

check: lint types layers wheel audit ## format, lint, types, layers, the wheel, known vulnerabilities

lint: .venv/.dev ## ... only format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/.dev ## ... only types
	$(BIN)/mypy animica_hooks $(wildcard tests/typing)

layers: .venv/.dev ## ... only the import contracts
	$(BIN)/lint-imports --no-cache

wheel: .venv/.dev ## ... only the wheel: reproducible, clean, and works when installed
	$(BIN)/python .ci/check_wheel.py

audit: .venv/.dev ## ... only known vulnerabilities in what is locked
	$(BIN)/python .ci/check_vulnerabilities.py requirements/run.txt

bench: .venv/.bench ## measure the receiver beside others
	$(BIN)/python -m benchmarks $(ARGS)

bench-sdk: .venv/.bench ## measure the SDK's clients against others
	$(BIN)/python -m benchmarks.sdk $(ARGS)

bench-overload: .venv/.dev ## measure ten times the load that the database takes, and after
	$(BIN)/python -m benchmarks.overload $(ARGS)

bench-replay: .venv/.dev ## measure how fast stored events are replayed
	$(BIN)/python -m benchmarks.replay $(ARGS)

bench-start: .venv/.dev ## measure how soon handlers begin in another process
	$(BIN)/python -m benchmarks.start $(ARGS)

bench-growth: .venv/.dev ## measure and draw how handlers, bodies, senders, tables and replays grow
	$(BIN)/python -m benchmarks.growth $(ARGS)

format: .venv/.dev ## format, and fix what the linter can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links --no-config $(if $(UPGRADE),--upgrade)

lock: .venv/.uv ## remake the hashed locks in requirements/ from pyproject.toml
	$(COMPILE) --extra all --group pyproject.toml:build pyproject.toml --output-file requirements/run.txt
	$(COMPILE) --extra all --group pyproject.toml:dev --constraint requirements/run.txt \
		pyproject.toml --output-file requirements/dev.txt
	$(COMPILE) --group pyproject.toml:bench --constraint requirements/dev.txt \
		--output-file requirements/bench.txt
	$(COMPILE) requirements/uv.in --output-file requirements/uv.txt

clean: ## remove all that the targets made
	rm -rf .venv build dist .coverage .coverage.* htmlcov .mypy_cache .ruff_cache .pytest_cache \
		.import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is lent by the interpreter outside, so that a Python without ensurepip will do.
.venv/.uv: requirements/uv.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making .venv with $(PYTHON)"
	@rm -rf .venv
	@if $(PYTHON) -m pip --version >/dev/null 2>&1; then \
		$(PYTHON) -m venv --without-pip .venv && \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check \
			--require-hashes --only-binary :all: --requirement requirements/uv.txt; \
	else \
		$(PYTHON) -m venv .venv && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check \
			--require-hashes --only-binary :all: --requirement requirements/uv.txt; \
	fi
	@touch $@

# Each set holds exactly its lock (and uv), so a change of one makes the other's stamp void or anew.
.venv/.run: requirements/run.txt pyproject.toml .venv/.uv
	@echo "installing what animica_hooks runs on"
	@$(SYNC) requirements/run.txt requirements/uv.txt
	@$(EDITABLE)
	@rm -f .venv/.dev .venv/.bench
	@touch $@

.venv/.dev: requirements/dev.txt requirements/run.txt pyproject.toml .venv/.uv
	@echo "installing what the tests and checks need"
	@$(SYNC) requirements/dev.txt requirements/uv.txt
	@$(EDITABLE)
	@rm -f .venv/.bench
	@touch .venv/.run $@

.venv/.bench: requirements/bench.txt requirements/dev.txt requirements/run.txt pyproject.toml .venv/.uv
	@echo "installing what we are compared with"
	@$(SYNC) requirements/dev.txt requirements/bench.txt requirements/uv.txt
	@$(EDITABLE)
	@touch .venv/.run .venv/.dev $@

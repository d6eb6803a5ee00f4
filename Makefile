# Two commands do everything: `make demo` and `make test`. The others are for people who work on it.
.PHONY: all setup demo test check format clean mutants bench-log

PYTEST ?= .venv/bin/pytest

all: setup

setup:
	@scripts/setup.sh

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

test: check
	$(PYTEST)

format: setup
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# One-line mutations of the replicated log, each of which a test must notice (some minutes).
mutants: setup
	.venv/bin/python scripts/mutants.py

# The replicated log beside the stock library, three servers on loopback (about a minute).
bench-log: setup
	.venv/bin/python bench/log.py

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

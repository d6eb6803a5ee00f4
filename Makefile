# Two commands do everything: `make demo` and `make test`. The others are for people who work on it.
.PHONY: all setup demo test check format clean

PYTEST ?= .venv/bin/pytest

all: setup

setup:
	@scripts/setup.sh

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

demo: setup
	@scripts/as-root .venv/bin/python -m wgmap_chaos.demo

test: check
	$(PYTEST)

format: setup
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

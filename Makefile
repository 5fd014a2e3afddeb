.DEFAULT_GOAL := help
BIN := .venv/bin

.PHONY: help
help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run:  ## install what it needs and run in development
	python3 src/api/deploy.py --config development --install-deps

.PHONY: install
install:  ## install what development needs into .venv
	@python3 src/api/tests/run_tests.py -- --version

.PHONY: test
test:  ## run all tests
	python3 src/api/tests/run_tests.py --type all

.PHONY: lint
lint: install  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: install  ## check types
	$(BIN)/basedpyright

.PHONY: imports
imports: install  ## check that imports point down
	$(BIN)/lint-imports

.PHONY: check
check: lint types imports test  ## all of the above: what pre-commit and CI check

.PHONY: format
format: install  ## mend style and format where that is safe
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock"

.PHONY: lock
lock:  ## write both lists from pyproject.toml; a pinned version stays while it fits (needs uv)
	$(COMPILE) --group build --output-file requirements-fastapi.txt pyproject.toml
	$(COMPILE) --group build --group dev --constraint requirements-fastapi.txt --output-file requirements-dev.txt pyproject.toml

.PHONY: settings
settings: install  ## write docs/settings.md and .env.example from the code
	$(BIN)/python docs/write_settings.py

.PHONY: benchmark
benchmark: install  ## measure the forecasters on a real week: make benchmark FILE=los_loop.npz
	$(BIN)/python benchmarks/forecast_los_loop.py $(FILE)

.PHONY: clean
clean:  ## remove caches and build results; .venv, var and .env stay
	rm -rf build dist .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

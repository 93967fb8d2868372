# Two commands: `make demo` runs the main job on drawn people, `make test` runs everything that checks
# gracl. Either one does its own set-up in .venv, the first time or when the dependencies change.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test fast lint

demo: $(VENV)/installed
	$(BIN)/gracl demo

# One thread a test process: two processes with two threads each would wait for each other.
test fast: export OMP_NUM_THREADS = 1

test: $(VENV)/installed-test lint
	$(BIN)/python -m pytest -n 2 -m "not slow"
	$(BIN)/python -m pytest -m slow

fast: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2 -m "not slow"

lint: $(VENV)/installed-test
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --editable '.[test]'
	touch $@

# Two commands: `make demo` runs the main job on drawn people, `make test` runs everything that checks
# gracl. Either one does its own set-up in .venv, the first time or when the dependencies change.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CODE := src tests benchmarks docs/tools examples

.PHONY: demo test fast lint docs coverage

demo: $(VENV)/installed
	$(BIN)/gracl demo

# One thread a test process: two processes with two threads each would wait for each other.
test fast coverage: export OMP_NUM_THREADS = 1

test: $(VENV)/installed-test lint
	$(BIN)/python -m pytest -n 2 -m "not slow"
	$(BIN)/python -m pytest -m slow

fast: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2 -m "not slow"

lint: $(VENV)/installed-test
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

# Lines and branches that all tests reach, about half an hour. Compiled loops count where a test runs
# them as plain Python.
coverage: $(VENV)/installed-test
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 -m "not slow"
	$(BIN)/coverage run -m pytest -m slow
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	$(BIN)/python benchmarks/reached.py

# The documentation as a site, in site/; a broken link is an error.
docs: $(VENV)/installed-docs
	$(BIN)/mkdocs build --strict
	@echo "read it in a browser: $(BIN)/python -m http.server --directory site --bind 127.0.0.1 8000"

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable .
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --editable '.[docs]'
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --editable '.[test]'
	touch $@

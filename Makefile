# make demo: a red mushroom from text, on this machine, with nothing but what this repository holds.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin
PROMPT ?= a red mushroom

.PHONY: demo install dev test lint format bench clean

demo: install
	$(BIN)/maquette generate "$(PROMPT)"

install: $(VENV)/.installed
dev: $(VENV)/.installed-dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/.installed

# one thread: for shapes as small as the tests' a second one costs more than it gives, and far more on a busy machine
test: dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ARGS)

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	for table in kernels hash_grid volume_rendering export guidance_step attention training engine; do $(BIN)/python benchmarks/$$table.py || exit 1; done

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache dist

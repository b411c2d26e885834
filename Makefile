# Every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo train lint type test test-all bench report clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Create the virtual environment and install everything into it; other targets do it by themselves.

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY) ## Train a small R3-CNN on drawn shapes, print AP per loop, write pictures to outputs/demo.
	$(BIN)/r3cnn train experiment=demo output_dir=outputs/demo $(ARGS)

train: $(READY) ## Train: make train ARGS="experiment=r3cnn_naive data.root=/data/coco output_dir=runs/naive"
	$(BIN)/r3cnn train $(ARGS)

lint: $(READY) ## Check style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(READY) ## Check types.
	$(BIN)/mypy

test: $(READY) ## Run the tests that are quick.
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

test-all: $(READY) ## Run all tests.
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

bench: $(READY) ## Run the benchmarks.
	$(BIN)/r3cnn bench $(ARGS)

report: $(READY) ## Write the report of the results.
	$(BIN)/r3cnn report $(ARGS)

clean: ## Remove the virtual environment, caches and built packages; the output of runs stays.
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

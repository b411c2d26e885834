# Every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=
# Of the tables: demo (shapes, CPU), nuclei (real images, CPU) or coco (the paper); seeds such as 0,1,2.
SCALE ?= demo
SEEDS ?= 0
TABLES := table1 table2 table3 table4 figure2
SWEEP_DIR = outputs/sweeps/$(SCALE)
REPORT_DIR = outputs/reports/$(SCALE)

.DEFAULT_GOAL := help
.PHONY: help setup demo train lint type test test-all test-lowest test-robustness test-gpu bench report clean $(TABLES)

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Create the virtual environment and install everything into it; other targets do it by themselves.

$(READY): pyproject.toml
	@echo "installing r3cnn into $(VENV): torch alone takes 5 GB and, with a fast line, two minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY) ## Train a small R3-CNN on drawn shapes, print AP per loop, write pictures to outputs/demo.
	$(BIN)/r3cnn train experiment=demo output_dir=outputs/demo resume=auto $(ARGS)

train: $(READY) ## Train: make train ARGS="experiment=r3cnn_naive data.root=/data/coco output_dir=runs/naive"
	$(BIN)/r3cnn train $(ARGS)

# What has been trained already is not trained again; what was interrupted is resumed.
sweep = $(BIN)/r3cnn train -m sweep=$@ scale=$(SCALE) seed=$(SEEDS) output_dir=$(SWEEP_DIR) $(ARGS)
table = $(BIN)/r3cnn report table=$@ search=[$(SWEEP_DIR)] output_dir=$(REPORT_DIR)/$@

table1: $(READY) ## Table 1 of the paper: six systems. make table1 SCALE=demo SEEDS=0,1,2 ARGS="launcher=ddp"
	$(sweep); trained=$$?; $(table) && exit $$trained

table2: $(READY) ## Table 2: one to five evaluation loops. SCALE is demo (default), nuclei or coco.
	$(sweep); trained=$$?; $(table) && exit $$trained

table3: $(READY) ## Table 3: one to four training loops.
	$(sweep); trained=$$?; $(table) && exit $$trained

table4: $(READY) ## Table 4: plug-ins of the extractor and of the backbone.
	$(sweep); trained=$$?; $(table) && exit $$trained

figure2: $(READY) ## Figure 2: IoU of the RoIs that each loop is trained on.
	$(sweep)
	$(BIN)/r3cnn analyze rois 'runs=[$(SWEEP_DIR)/mask_rcnn_3x-*,$(SWEEP_DIR)/r3cnn_naive_decreasing-*,$(SWEEP_DIR)/r3cnn_naive-*]' output_dir=$(REPORT_DIR)/$@

lint: $(READY) ## Check style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(READY) ## Check types.
	$(BIN)/mypy

test: $(READY) ## Run the tests that are quick.
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

test-all: $(READY) ## Run all tests.
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# Extras are left out, and so is wandb, which nothing needs that has not chosen it.
LOWEST := build/lowest
test-lowest: ## Train, resume, evaluate and report with the lowest versions that pyproject.toml allows.
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) -c 'import tomllib; print(*(name.replace(">=", "==") for name in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"] if not name.startswith("wandb")), sep="\n")' > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -r $(LOWEST)/lowest.txt pytest pytest-timeout hypothesis
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	$(LOWEST)/bin/python -m pytest tests/integration/test_lowest_versions.py $(ARGS)

test-robustness: $(READY) ## Try 500 mutated settings, 500 broken annotation files, 250 damaged checkpoints and 30 kills; takes an hour.
	R3CNN_ROBUSTNESS="500 500 250" $(BIN)/python -m pytest -s tests/robustness/test_trials.py tests/robustness/kills.py $(ARGS)

test-gpu: $(READY) ## Run the tests that need a GPU.
	$(BIN)/python -m pytest tests/gpu $(ARGS)

bench: $(READY) ## Run the benchmarks.
	$(BIN)/r3cnn bench $(ARGS)

report: $(READY) ## Write the report of the results.
	$(BIN)/r3cnn report $(ARGS)

clean: ## Remove the virtual environment, caches and built packages; the output of runs stays.
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# `make train` and `make test` set up everything they need in .venv; a second call installs nothing.
# A PyTorch index of your choice: make train PIP_ARGS="--index-url URL" (see README, "Choosing a PyTorch build").
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
# a process a core; each begins with its share in order, so that few fixtures of a file are made twice
PARALLEL := -n logical --maxprocesses 8 --dist worksteal
TEST_EXTRAS := plot,images,report,track,deploy,sweep,integrations,dev

.PHONY: train test test-slow notebooks lint types format clean

train: $(VENV)/.ready-train
	$(BIN)/bregman train --config configs/mlp-sample.yaml

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-slow: $(VENV)/.ready-test
	$(BIN)/python -m pytest $(PARALLEL) -m slow

notebooks: $(VENV)/.ready-test
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=300 notebooks

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready-test
	$(BIN)/pyright

format: $(VENV)/.ready-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 10) else \
	  "torch-bregman needs Python 3.10 or newer, this is %d.%d: call make PYTHON=/path/to/python3.12" % v)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready-train: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e ".[plot]"
	@touch $@

$(VENV)/.ready-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e ".[$(TEST_EXTRAS)]"
	@touch $@ $(VENV)/.ready-train

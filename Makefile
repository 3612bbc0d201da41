# The environment is made in .venv; `make PYTHON=python3.12 …` chooses the interpreter
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := .ci/constraints.txt

ALGO ?= smac
ENV ?= Hopper-v4
STEPS ?= 1000000
SEED ?= 0

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# PyTorch first and pinned: an open range may pull gigabytes of another build
$(VENV)/installed: setup.cfg pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[dev,benchmark]'
	touch $@

.PHONY: train
train: $(VENV)/installed ## Train an agent (ENV=Hopper-v4 ALGO=smac STEPS=1000000 SEED=0)
	@$(BIN)/python -m sb3_smac --algo '$(ALGO)' --env '$(ENV)' --steps '$(STEPS)' --seed '$(SEED)'
	@echo "Before these commands: source $(BIN)/activate"

.PHONY: test
test: $(VENV)/installed ## Run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

.PHONY: test-slow
test-slow: $(VENV)/installed ## Run the slow learning checks (about twelve minutes on two cores)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

.PHONY: lint
lint: $(VENV)/installed ## Check style
	$(BIN)/ruff check .
	$(BIN)/black --line-length 127 --check --quiet .

.PHONY: type
type: $(VENV)/installed ## Check types
	$(BIN)/mypy sb3_smac

.PHONY: format
format: $(VENV)/installed ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/black --line-length 127 --quiet .

.PHONY: commit-checks
commit-checks: format type lint test ## All of it, before a commit

.PHONY: benchmark
benchmark: $(VENV)/installed ## Measure speed beside SB3's A2C and PPO and sb3-contrib's TRPO (under ten minutes on two cores)
	$(BIN)/python benchmarks/speed

.PHONY: reports
reports: $(VENV)/installed ## Write the report of every published study into its folder of benchmarks/results
	for runs in benchmarks/results/*/runs.jsonl; do \
		$(BIN)/python -m sb3_smac.benchmark report "$$(basename "$$(dirname "$$runs")")" || exit 1; \
	done

.PHONY: notebooks
notebooks: $(VENV)/installed ## Execute the notebooks and save their outputs (one to two minutes)
	$(BIN)/python notebooks/execute.py

.PHONY: docs
docs: $(VENV)/installed ## Build the documentation into build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/mkdocs.yml

.PHONY: figures
figures: $(VENV)/installed ## Draw the images of the README and the documentation from the stored results (a minute)
	$(BIN)/python docs/figures.py

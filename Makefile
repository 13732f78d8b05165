# Two commands on a fresh machine: `make demo` and `make test`. Both make the environment first, where it is missing.

PYTHON ?= python3
SCENE ?= scenes/armillary
DEMO := runs/demo
# More arguments for the installation of torch; without a GPU, spare yourself gigabytes of CUDA with
#   make env TORCH_FROM="--index-url https://download.pytorch.org/whl/cpu"
TORCH_FROM ?=

BIN := .venv/bin
# Python compiles a module when it is first imported, which the end of env does for those of a training: to compile all
# that is installed would take half as long as the rest.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help env demo test lint bench

help:
	@echo "make demo   train the bundled scene for a minute; print its quality, write a film and a report"
	@echo "make test   run all tests"
	@echo "make lint   check style"
	@echo "make bench  measure kernels, training and rendering"
	@echo "make env    make .venv with everything that these need"

env: .venv/.ready

# Torch goes first and alone, so that everything that asks for "some torch" finds this one.
.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nerfkit needs Python 3.11 or newer: make PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing torch into .venv"
	@$(PIP) $(TORCH_FROM) torch
	@echo "installing nerfkit and what its tests need into .venv"
	@$(PIP) -e '.[dev]'
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import nerfkit.session, nerfkit.assess, nerfkit.report'
	@touch $@

# Trains anew each time: the run of the last demo goes.
demo: env
	@rm -rf $(DEMO)
	$(BIN)/nerfkit train $(SCENE) --out $(DEMO) --time-budget 60s --seed 0
	$(BIN)/nerfkit render $(DEMO) --path orbit --frames 48 --out $(DEMO)/renders/orbit.mp4
	@echo "look at $(DEMO)/report.html and $(DEMO)/renders/orbit.mp4"

# A file goes to one process, as its tests share what they trained; each computes on one core. What one of the many
# processes compiles of Python, the others find.
test: env
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# One JSON line a measurement; on a quiet machine, please. PEER is a Python with nerfstudio, if there is one to compare.
bench: env
	@rm -rf runs/bench
	$(BIN)/python tools/bench/kernels.py
	$(BIN)/python tools/bench/training.py $(SCENE) --budgets 60 300 --seeds 0 1 2 --out runs/bench
	$(BIN)/python tools/bench/rendering.py runs/bench/$(notdir $(SCENE))-300s-seed0
	$(BIN)/python tools/bench/peer_nerfstudio.py $(SCENE) $(if $(PEER),--peer-python $(PEER))

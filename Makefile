# make demo     a real greedy soup of real fine-tunes, scored by the real VLMEvalKit; ends with a table
# make test     lint, types, tests
# make test-all the slow tests too
# make bench    speed and memory of a merge, against the floor of this machine
#
# Each sets up what it needs in .venv and is safe to repeat. No target needs a package of the operating system.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test test-all lint bench clean

demo: .venv/demo
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/toy/demo.sh

test: .venv/ready lint
	$(BIN)/pytest -m "not slow and not gpu"

test-all: .venv/ready lint
	$(BIN)/pytest -m "not gpu"

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready
	$(BIN)/python benchmarks/merge.py

# One pip command holds the constraints and everything that depends on torch. ms-vlmeval goes in alone: its light
# import path needs none of its 60 dependencies but those of the extra [vlmeval-light].
.venv/ready: .venv/demo
	$(PIP) -c constraints.txt -e '.[test]'
	touch $@

.venv/demo: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -c constraints.txt -e '.[vlmeval-light,finetune]'
	$(PIP) --no-deps ms-vlmeval==0.0.20
	touch $@

clean:
	rm -rf .venv examples/toy/work benchmarks/work build *.egg-info

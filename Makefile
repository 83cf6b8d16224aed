# make demo     a real greedy soup of real fine-tunes, scored by the real VLMEvalKit; ends with a table
# make test     lint, types, tests
# make test-all the slow tests too
# make zoo      every image-text-to-text class that the installed transformers can make; writes docs/zoo.md
#               (make zoo MERGEKIT=1: what mergekit makes of the same files stands beside it)
# make test-vllm  the engine vllm and servers, with the real vLLM for processors, in .venv-vllm
# make notebook runs examples/notebook.ipynb and writes its outputs into it
# make smoke    sdist and wheel in environments of their own, with a compiler and without: soup, soup demo, soup doctor
# make test-page  the pages of soup report and soup arena in a real Chromium (make system-page installs one on Debian)
# make docs     the site of the documentation, build/site/index.html; writes docs/cli.md; links and code blocks are tested
# make fuzz     every reader of files and answers on damaged ones: EXECUTIONS=100000 of each
# make bench    benchmarks/README.md's pictures: merges of several sizes against the floor of this machine (MERGEKIT=1: and
#               mergekit), simulated searches over workers and of disputed questions, engines where .venv-vllm is
# make system   what Debian's python3 may lack of the operating system: venv (apt-get, as root)
#
# Each sets up what it needs in .venv and is safe to repeat.

PYTHON ?= python3
BIN := .venv/bin
comma := ,
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

KERNELS := $(wildcard soup/merging/kernels/*)
EXECUTIONS ?= 100000
TEST_PROCESSES ?= 2

.PHONY: demo notebook test test-page test-all smoke test-vllm test-vllm-here zoo lint fuzz docs bench system system-page clean

demo: .venv/demo
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/toy/demo.sh

test: .venv/ready lint
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile -m "not slow and not gpu and not zoo and not vllm"

# One process for the slow tests: several of them start Ray or fill the machine.
test-all: test
	$(BIN)/pytest -m "slow and not gpu and not zoo and not vllm"

notebook: .venv/ready
	$(BIN)/python examples/run_notebook.py

smoke: .venv/ready
	$(BIN)/pytest tests/packaging

test-page: .venv/ready
	$(PIP) 'playwright>=1.50'
	$(BIN)/pytest tests/report/page tests/evaluators/arena/test_in_chromium.py

zoo: .venv/ready $(if $(MERGEKIT),.venv-mergekit/ready)
	ZOO_TABLE=docs/zoo.md $(if $(MERGEKIT),ZOO_MERGEKIT=.venv-mergekit/bin/python) $(BIN)/pytest -m zoo tests/zoo

# vLLM pins transformers below 5.20: the tests of judging run on that one, too.
test-vllm:
	@if tests/vllm/can_run.sh; then $(MAKE) test-vllm-here; else echo "make test-vllm: left out"; fi

test-vllm-here: .venv-vllm/ready
	.venv-vllm/bin/python -m pytest -m vllm tests/vllm
	WITHOUT_TORCHVISION=1 .venv-vllm/bin/python -m pytest -m "not slow and not gpu" tests/evaluators tests/hf

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fuzz: .venv/fuzz
	$(BIN)/python -m tests.fuzz --executions $(EXECUTIONS)

docs: .venv/docs
	$(BIN)/python docs/hooks/cli_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/pytest tests/docs

bench: .venv/ready
	for size in 0.3 0.6 1.24 2.5; do \
	    $(BIN)/python benchmarks/merge.py --gigabytes $$size --record $(if $(MERGEKIT),--against mergekit) || exit 1; \
	done
	$(BIN)/python benchmarks/speculation.py --record
	$(BIN)/python benchmarks/disputed.py simulated --count 40 --basin 0.05 --forgotten 0,0.0003,0.001 --record
	[ ! -x .venv-vllm/bin/python ] || .venv-vllm/bin/python -m benchmarks.engines --record
	$(BIN)/python benchmarks/draw.py

system:
	@$(PYTHON) -c 'import ensurepip, venv' || { apt-get update && apt-get install --yes python3-venv; }

system-page:
	@command -v chromium >/dev/null || { apt-get update && apt-get install --yes chromium; }

# One pip command holds the constraints and everything that depends on torch. ms-vlmeval goes in alone: its light
# import path needs none of its 60 dependencies but those of the extra [vlmeval-light].
# It goes in last, and out before: pip would list at length what it asks for and does not get.
.venv/ready: setup.cfg setup.py pyproject.toml constraints.txt $(KERNELS)
	$(call install,test)

.venv/demo: setup.cfg setup.py pyproject.toml constraints.txt $(KERNELS)
	$(call install,vlmeval-light,finetune)

.venv/docs: .venv/ready
	$(PIP) -c constraints.txt -e '.[docs]'
	touch $@

.venv-mergekit/ready: constraints.txt
	$(PYTHON) -m venv .venv-mergekit
	.venv-mergekit/bin/pip install --quiet --disable-pip-version-check -c constraints.txt mergekit
	touch $@

.venv-vllm/ready: setup.cfg constraints.txt tests/vllm/make_environment.sh
	tests/vllm/make_environment.sh .venv-vllm $(PYTHON)

# atheris has wheels for few systems and versions of Python; without it the targets run under hypothesis.
.venv/fuzz: .venv/ready
	$(PIP) -c constraints.txt --no-deps atheris || echo "no atheris here: fuzzing by hypothesis"
	touch $@

define install
	$(PYTHON) -m venv .venv
	$(BIN)/pip uninstall --quiet --yes ms-vlmeval 2>/dev/null
	$(PIP) -c constraints.txt -e '.[$(1)$(if $(2),$(comma)$(2))]'
	$(PIP) --no-deps ms-vlmeval==0.0.20
	touch $@
endef

clean:
	rm -rf .venv .venv-mergekit .venv-vllm examples/toy/work benchmarks/work build *.egg-info

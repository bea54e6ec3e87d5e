# Two commands on a fresh machine: `make demo` and `make test`. `make help` lists the rest.
#
# torch comes from pip's default index, which on Linux is the CUDA build. DLM_TORCH_INDEX names another index for it
# (for example one with CPU builds, gigabytes smaller), TORCH another version.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
TORCH_INDEX := $(if $(DLM_TORCH_INDEX),--index-url $(DLM_TORCH_INDEX),)
CONSTRAINTS := constraints.txt
WORKERS ?= auto
SPREAD := -n $(WORKERS) --maxprocesses 4 --dist loadfile

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help demo test quick slow lint mutations bench bench-training pocket docs install install-dev browser clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dlm needs Python 3.11 or newer; found " + sys.version)'
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone, so that nothing else chooses its build.
$(VENV)/.torch: | $(VENV)/bin/python
	$(BIN)/pip install --quiet $(TORCH_INDEX) $(TORCH)
	@touch $@

$(VENV)/.train: pyproject.toml $(CONSTRAINTS) $(VENV)/.torch
	$(BIN)/pip install --quiet -c $(CONSTRAINTS) -e '.[train]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(CONSTRAINTS) $(VENV)/.train
	$(BIN)/pip install --quiet -c $(CONSTRAINTS) -e '.[train,web,dev]'
	@touch $@

install: $(VENV)/.train  ## create .venv with dlm in it
install-dev: $(VENV)/.dev  ## ... and with what tests need

demo: install  ## train the example document and ask it before and after
	$(BIN)/dlm demo

# Browser tests drive the system's Chromium (DLM_CHROMIUM names another one). Where this target cannot install it, they
# are skipped with a line that says so; under CI=true they fail.
browser:  ## the system's Chromium for the browser tests, where it is missing and apt-get may install it
	@if [ -n "$$DLM_CHROMIUM" ] || command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing chromium for the browser tests"; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	  || echo "=== CHROMIUM COULD NOT BE INSTALLED: the browser tests cannot run ==="; \
	else echo "=== NO CHROMIUM: the browser tests cannot run; install the package chromium, or set DLM_CHROMIUM ==="; fi

test: install-dev lint browser  ## everything that CI runs (≤ 15 minutes)
	DLM_TEST_EXAMPLES=2000 $(BIN)/pytest $(SPREAD) -m 'not slow and not gpu'

quick: install-dev  ## while working (≤ 90 seconds): no subprocess that loads torch
	DLM_TEST_EXAMPLES=100 $(BIN)/pytest $(SPREAD) -m 'not slow and not gpu and not process and not big' -x

slow: install-dev  ## by hand before a release; its log is committed under bench/results
	DLM_TEST_EXAMPLES=2000 $(BIN)/pytest -m slow --no-header -vv --durations=3 2>&1 | tee bench/results/slow.log

lint: install-dev  ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

mutations: install-dev  ## put known bugs into a copy, one by one: a test must fail each time (20 minutes)
	$(BIN)/python -m tools.mutations

bench: install-dev  ## benchmarks; results land in bench/results
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/document.py
	$(BIN)/python bench/store.py
	$(BIN)/python bench/diagnose_scale.py
	$(BIN)/python bench/diagnosis.py
	$(BIN)/python bench/threads.py
	$(BIN)/python bench/web.py
	$(BIN)/python bench/training.py --size tiny --ratio 2

bench-training: install-dev  ## against TRL: what has no result yet, cell by cell; then loss curves (hours)
	$(BIN)/python bench/training.py --all
	for method in dpo sft reward; do $(BIN)/python bench/training_quality.py --method $$method || exit 1; done

pocket: install-dev  ## make the embedded base anew (≤ 90 minutes on two cores), then measure it
	$(BIN)/python -m tools.pocket.train
	$(BIN)/python -m tools.pocket.measure

docs: install-dev  ## regenerate the command-line reference and the tables of docs/curves.md
	$(BIN)/python tools/docs/cli_reference.py
	$(BIN)/python tools/docs/curve_rules.py

clean:  ## remove the environment and caches; stores and documents stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

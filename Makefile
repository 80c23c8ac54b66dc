# Commands for developers. `make` alone prints the list.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DOCS   := $(VENV)/.docs-installed

# The torch to install: the pinned version, or that of `make setup TORCH=...`, which is stored for later runs.
PINNED_TORCH := $(shell grep '^torch==' constraints.txt)
TORCH        ?= $(or $(shell cat $(VENV)/torch.txt 2>/dev/null),$(PINNED_TORCH))

# One thread per process for reproducible sums; two processes for two cores.
test test-fast test-gpu test-isa mutants: export OMP_NUM_THREADS ?= 1
WORKERS ?= 2
PYTEST     = $(BIN)/python -m pytest --dist worksteal
CHECKED   := --jaxtyping-packages=pipeline,shapes.check $(patsubst %,--ignore=tests/%,distributed slurm chaos compile gpu benchmarks)
SELECT    ?= not benchmark and not sweep
UNCHECKED := $(patsubst %,--ignore=tests/%,unit golden)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-fast test-gpu test-isa mutants chaos bench bench-peers gpu-report check release-check docs format lock clean

help: ## Print this list
	@echo "make TARGET [PYTHON=python3.12] [TORCH='torch==2.13.0 ...'] [ARGS='-k lstm']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv and install everything at the pinned versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make setup: requires Python 3.11 or later, but $(PYTHON) is $$($(PYTHON) -V 2>&1 | head -n 1). Try make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make setup: $(PYTHON) has no venv module. Install it (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	@echo '$(TORCH)' > $(VENV)/torch.txt
	$(BIN)/pip install -q -c $(VENV)/constraints.txt $(TORCH)
	$(BIN)/pip install -q -c $(VENV)/constraints.txt -e '.[test,check]'
	@# DeepSpeed's build script imports torch, which an isolated build lacks. Its kernels are compiled on demand.
	DS_BUILD_OPS=0 $(BIN)/pip install -q -c $(VENV)/constraints.txt --no-build-isolation -e '.[deepspeed]'
	@touch $@

demo: $(STAMP) ## Prepare a corpus, train, interrupt, resume, sample and compare (4 minutes)
	$(BIN)/unroll demo

test: export PYTHONDONTWRITEBYTECODE :=  # each process that a test starts would compile the modules again
test: $(STAMP) ## Run the tests that can run on this machine
	@# Two parts: shape checks slow down tests that start processes, and do not work with compiled code. The tests of
	@# the first part mostly wait for processes and for Slurm, so it has twice as many workers.
	@# With ARGS='-k lstm' one of the parts may be empty (exit code 5), but not both.
	@$(PYTEST) -q -n $$((2 * $(WORKERS))) $(UNCHECKED) -m '$(SELECT)' $(ARGS); first=$$?; [ $$first = 0 ] || [ $$first = 5 ] || exit $$first; \
	$(PYTEST) -n $(WORKERS) $(CHECKED) -m '$(SELECT)' $(ARGS); second=$$?; [ $$first$$second = 05 ] || exit $$second

test-all: ## Run the tests with all combinations of strategies, orders of data and moments of a stop
	$(MAKE) test SELECT='not benchmark' ARGS="$(ARGS)"

test-fast: $(STAMP) ## Run the tests that take no more than a few seconds each
	$(PYTEST) -n $(WORKERS) $(CHECKED) -m '$(SELECT) and not slow' $(ARGS)

test-gpu: $(STAMP) ## Run the tests that require a CUDA device
	$(BIN)/python -m pytest -m 'gpu and not benchmark' $(ARGS)

test-isa: $(STAMP) ## Run the tests marked learns or numeric with other instruction sets (ARGS='--rows avx2/AVX2/1')
	$(BIN)/python tests/isa.py $(ARGS)

mutants: $(STAMP) ## Mutation testing: change one place of a module; its unit tests must fail (ARGS='sampling --number 50')
	$(BIN)/python tests/mutation/mutants.py $(ARGS)

chaos: $(STAMP) ## Hurt runs 200 times and compare them with undisturbed ones (25 minutes; ARGS='--kills 40 --seed 1'); write docs/benchmarks
	$(BIN)/python -m tests.chaos --output docs/benchmarks/chaos.json $(ARGS)

# On one core, but for what runs more than one process; bench_slurm.py is run by itself. A failure does not stop the rest.
BENCH_ONE := startup generate head recurrence padding pairs audio trajectories diagnosis pixels loader fit
BENCH_TWO := prepare tracking resume strategies
PIN       := $(if $(shell command -v taskset),taskset -c 0)
bench: export OMP_NUM_THREADS := 1
bench: $(STAMP) ## Run the CPU benchmarks (16 minutes; ARGS='--output docs/benchmarks/cpu.json' stores them)
	@export UNROLL_LOAD=$$(cut -d' ' -f1 /proc/loadavg); failed=; \
	run() { echo "== bench_$$1.py $(ARGS)"; $$2 $(BIN)/python tests/benchmarks/bench_$$1.py $(ARGS) || failed="$$failed $$1"; }; \
	for name in $(BENCH_ONE); do run $$name '$(PIN)'; done; for name in $(BENCH_TWO); do run $$name; done; \
	[ -z "$$failed" ] || { echo "bench: failed:$$failed" >&2; exit 1; }

bench-peers: $(STAMP) ## Install other libraries in .peers (4 GB), train and generate beside them; write docs/benchmarks
	OMP_NUM_THREADS=1 $(PIN) $(BIN)/python tests/benchmarks/bench_peers.py --output docs/benchmarks/peers.json $(ARGS)

gpu-report: $(STAMP) ## Run tests and benchmarks on a CUDA device (under 10 minutes; ARGS='--rows gpt lstm'); write docs/benchmarks
	$(BIN)/python tests/benchmarks/gpu_report.py $(ARGS)

check: $(STAMP) ## Check style, formatting, types, import layers and shell scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if command -v shellcheck > /dev/null; then shellcheck .ci/run slurm/*.sbatch && echo "shellcheck: passed"; \
	else echo "shellcheck is not installed: shell scripts were not checked"; fi

release-check: $(STAMP) ## Build wheel and sdist, check them with twine, run the wheel in a clean environment
	$(BIN)/python tests/release.py --torch '$(TORCH)'

docs: $(DOCS) ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "docs: site/index.html"

$(DOCS): $(STAMP)
	@# Only the packages of the extra, not the project with it: torch stays as it was chosen.
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' \
	  > $(VENV)/docs.txt
	$(BIN)/pip install -q -c $(VENV)/constraints.txt -r $(VENV)/docs.txt
	@touch $@

format: $(STAMP) ## Apply the automatic fixes of linter and formatter
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP) $(DOCS) ## Regenerate constraints.txt from the packages in .venv
	@{ sed -n '/^#/p' constraints.txt; \
	   $(BIN)/pip freeze --all --exclude-editable | grep -v -e '^pip==' -e ' @ ' | sed 's/^\(torch==[0-9.]*\)+.*/\1/' | LC_ALL=C sort -f; \
	} > $(VENV)/lock.txt
	mv $(VENV)/lock.txt constraints.txt

clean: ## Remove caches and build products; keep data/, runs/ and .venv
	rm -rf build dist site .chaos .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find pipeline data_prep tests -name __pycache__ -type d -prune -exec rm -rf {} +

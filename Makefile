# Everything a person needs is here: `make help`. Needs only make and Python 3.11 to 3.13 (with its venv module).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV ?= .venv
LABEL_STUDIO_VENV ?= .venv-label-studio
PIP_ARGS ?=
ARGS ?=
PY := $(VENV)/bin/python
# Tests at a time. A file's tests stay together: they share servers. A thread that waits sleeps: other tests want its core.
JOBS ?= 2
PYTEST = OMP_WAIT_POLICY=PASSIVE $(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-fast system-programs check bench faults label-studio install clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make test JOBS=4              so many tests at a time (2 otherwise)"
	@echo "  make demo ARGS=--exit         stop the servers at the end"
	@echo "  make demo ARGS=\"--images DIR --good CLASS\"   the same loop on your own pictures"

# Both environments are made in one go each; the stamp makes a second call instant.
$(VENV)/.installed: pyproject.toml infra/constraints.txt
	@echo "==> [1/2] main environment in $(VENV) (PyTorch, MLflow, Prefect, ONNX Runtime; 2 to 10 minutes the first time)"
	@test -n "$(PYTHON)" || { echo "Python 3.11 to 3.13 is missing: install it (with its venv module) and run make again"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "$(PYTHON) is $$("$(PYTHON)" --version): Python 3.11 to 3.13 is needed (the pinned NumPy has no wheel for a later one). Set PYTHON=/path/to/python3.11"; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { echo "could not make a virtual environment: install the venv module of $(PYTHON) (Debian: apt-get install python3-venv)"; exit 1; }
	@$(PY) -m pip install --progress-bar on --disable-pip-version-check $(PIP_ARGS) -c infra/constraints.txt -e '.[server,train,dev]' 2>&1 | awk -f infra/pip-progress.awk
	@touch $@

$(LABEL_STUDIO_VENV)/.installed: infra/label-studio-constraints.txt
	@echo "==> [2/2] Label Studio in an environment of its own, $(LABEL_STUDIO_VENV) (its pins exclude current Prefect; 1 to 3 minutes)"
	@"$(PYTHON)" -m venv $(LABEL_STUDIO_VENV)
	@$(LABEL_STUDIO_VENV)/bin/python -m pip install --progress-bar on --disable-pip-version-check $(PIP_ARGS) -c infra/label-studio-constraints.txt label-studio 2>&1 | awk -f infra/pip-progress.awk
	@echo "    preparing its database (every new state folder gets a copy)"
	@LABEL_STUDIO_BASE_DATA_DIR=$(abspath $(LABEL_STUDIO_VENV))/fresh LABEL_STUDIO_LATEST_VERSION_CHECK=false \
	    LABEL_STUDIO_COLLECT_ANALYTICS=false LABEL_STUDIO_SENTRY_DSN= \
	    $(LABEL_STUDIO_VENV)/bin/label-studio version >$(LABEL_STUDIO_VENV)/prepare.log 2>&1 \
	    || { tail -n 20 $(LABEL_STUDIO_VENV)/prepare.log; exit 1; }
	@touch $@

install: $(VENV)/.installed $(LABEL_STUDIO_VENV)/.installed ## Make both environments

label-studio: $(LABEL_STUDIO_VENV)/.installed ## Make Label Studio's environment

demo: install ## The whole loop on this machine: camera, label, retrain, signed int8 bundle, safer line
	@$(VENV)/bin/inspection demo $(ARGS)

# Said before anything runs, so that a skip is no surprise.
system-programs:
	@missing=$$(bash .ci/missing | tr '\n' ' '); test -z "$$missing" || { \
	    echo "==> not on this machine: $$missing"; \
	    echo "    Tests that need them will be skipped. On Debian: apt-get install $$missing"; }

test: system-programs install ## Every test: fast ones first, then those with real servers
	@echo "==> fast tests"
	@$(PYTEST) -q -m "not slow and not service and not browser and not loop and not fault" $(ARGS)
	@echo "==> tests with real servers, browsers and the whole loop"
	@$(PYTEST) -v --durations=15 -m "slow or service or browser or loop or fault" $(ARGS)

test-fast: $(VENV)/.installed ## Only the tests without servers
	@$(PYTEST) -q -m "not slow and not service and not browser and not loop and not fault" $(ARGS)

check: $(VENV)/.installed ## Static checks: ruff, mypy (strict), import laws
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

bench: install ## Measure the figures side by side: prints their table, writes bench.json
	@$(PY) -m tests.benchmarks

faults: install ## Every fault test, with long sweeps: programs and servers killed at many moments
	@ESCAPEMENT_FAULTS=long $(PY) -m pytest -v -m fault $(ARGS)

clean: ## Remove both environments and caches (not your state folder)
	@rm -rf $(VENV) $(LABEL_STUDIO_VENV) .pytest_cache .mypy_cache .ruff_cache build *.egg-info

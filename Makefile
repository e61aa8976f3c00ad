# Two commands are all the set-up there is: `make demo` and `make test`. Each makes its own .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet install
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench soak lock docs clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "sidecar needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "making $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "cannot make a virtual environment (on Debian: apt install python3-venv)"; exit 2; }

$(VENV)/.core: requirements/core.txt requirements/build.txt pyproject.toml | $(BIN)/python
	@echo "installing the locked dependencies of the core"
	@$(PIP) --require-hashes --only-binary :all: -r requirements/core.txt -r requirements/build.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.core
	@echo "installing the locked development tools"
	@$(PIP) --require-hashes --only-binary :all: -r requirements/dev.txt
	@touch $@

$(VENV)/.bench: requirements/bench.txt $(VENV)/.core
	@echo "installing the locked benchmark peers"
	@$(PIP) --require-hashes --only-binary :all: -r requirements/bench.txt
	@touch $@

demo: $(VENV)/.core ## watch a service being protected, step by step (KEEP=1 leaves it running)
	@$(BIN)/sidecar demo $(if $(KEEP),--keep) $(ARGS)

test: $(VENV)/.dev ## all tests that need nothing but Python (ARGS='-k name' for some)
	@$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev ## format check, ruff, mypy --strict, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.dev ## put the code into its format and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/.bench $(VENV)/.dev ## CPU per request beside Envoy, in the same run
	@$(BIN)/python -m tests.bench $(ARGS)

docs: $(VENV)/.dev ## write the generated parts of the documentation anew
	@$(BIN)/python -m tests.repo.generate

lock: ## resolve requirements/*.txt anew from pyproject.toml (needs uv)
	uv pip compile --universal --generate-hashes --no-header --no-annotate --quiet --python-version 3.11 pyproject.toml -o requirements/core.txt
	echo hatchling | uv pip compile --universal --generate-hashes --no-header --no-annotate --quiet --python-version 3.11 - -o requirements/build.txt
	uv pip compile --universal --generate-hashes --no-header --no-annotate --quiet --python-version 3.11 --extra dev -c requirements/core.txt -c requirements/build.txt pyproject.toml -o requirements/dev.txt
	uv pip compile --universal --generate-hashes --no-header --no-annotate --quiet --python-version 3.11 --extra bench -c requirements/core.txt pyproject.toml -o requirements/bench.txt

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

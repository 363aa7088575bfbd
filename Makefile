# `make run` and `make test` are all a newcomer needs; `make help` lists the rest.
# A recipe needs a POSIX shell, Python 3.11 or newer and the package registry that pip is set up for; nothing else.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
UV_VERSION := 0.13.9
# New releases are taken after a week: a poisoned one is usually found by then.
COOL_DOWN := 7 days

# Which tests, and how: make test TESTS=tests/unit PYTEST_ARGS="-k graph"
TESTS :=
PYTEST_ARGS :=
BENCH_ARGS :=
# Two for a core: many tests wait for processes to end, for leases and for brokers.
WORKERS := $(shell expr 2 \* "$$(nproc 2>/dev/null || echo 2)")

# What `make run` adds to the environment, where that does not say otherwise.
run: export RUNYARD_EXECUTORS ?= local
run: export RUNYARD_CODE_DIR ?= $(CURDIR)/examples

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '%-14s %s\n' "$$name" "$$text"; done

.PHONY: run
run: $(VENV)/.run ## Start the service on SQLite with the example DAGs
	@exec $(BIN)/runyard standalone --apply examples

.PHONY: test
test: $(VENV)/.test ## Run the whole test suite
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS) $(TESTS)

.PHONY: setup
setup: $(VENV)/.test ## Make .venv with everything for development

.PHONY: check
check: lint test ## All that CI does

# Which benchmarks, and how: make bench BENCH_ARGS="chain lists --repeat 5 --patience 60"
.PHONY: bench
bench: $(VENV)/.test ## Measure every figure, beside its goal; about an hour, BENCH_ARGS chooses
	@$(BIN)/python -m bench $(BENCH_ARGS)

.PHONY: lint
lint: $(VENV)/.test ## Format, lint, types, arrows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: fmt
fmt: $(VENV)/.test ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .

.PHONY: docs
docs: $(VENV)/.test ## Write the generated pages anew: states, fields, settings, commands, conformance
	$(BIN)/python docs/generate.py

.PHONY: lock
lock: $(VENV)/.made ## Resolve the dependencies anew into requirements/*.txt, hashed and without addresses
	@$(PIP) install uv==$(UV_VERSION)
	@for name in build runtime image test; do \
		case $$name in \
			build) from=requirements/build.in ;; \
			runtime) from='pyproject.toml --extra dramatiq' ;; \
			image) from='pyproject.toml --all-extras' ;; \
			test) from='pyproject.toml requirements/test.in --all-extras' ;; \
		esac; \
		echo "requirements/$$name.txt"; \
		$(BIN)/python -m uv --system-certs pip compile --quiet --upgrade --universal --generate-hashes \
			--no-emit-index-url --no-header --python-version 3.11 --exclude-newer "$(COOL_DOWN)" $$also \
			--output-file requirements/$$name.txt $$from || exit 1; \
		also="$$also --constraint requirements/$$name.txt"; \
	done

.PHONY: wheel
wheel: $(VENV)/.test ## Build dist/*.whl
	$(BIN)/python -m hatchling build --target wheel

.PHONY: clean
clean: ## Remove .venv and all caches; no data
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Each stamp says: this step is done for these inputs. That makes the second `make run` start at once.
$(VENV)/.made:
	@for python in $(PYTHON) python3.11 python3 python3.12 python3.13 python3.14 python; do \
		if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Making $(VENV) with $$($$python -c 'import sys; print(sys.executable, "(Python %d.%d)" % sys.version_info[:2])')"; \
			$$python -m venv $(VENV) && touch $@ && exit 0; exit 1; \
		fi; \
	done; \
	echo "Runyard needs Python 3.11 or newer with the venv module, and found none on the PATH." >&2; \
	echo "On Debian or Ubuntu: apt-get install python3 python3-venv. Another place: make run PYTHON=/path/to/python3.11" >&2; \
	exit 1

$(VENV)/.run: $(VENV)/.made requirements/build.txt requirements/runtime.txt pyproject.toml
	@echo "Installing what Runyard needs (hashed: requirements/runtime.txt)"
	@$(PIP) install --require-hashes -r requirements/build.txt -r requirements/runtime.txt
	@$(PIP) install --no-index --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements/test.txt
	@echo "Installing what its tests need (hashed: requirements/test.txt)"
	@$(PIP) install --require-hashes -r requirements/test.txt
	@touch $@

# Everything runs from this folder by relative paths, so a path with spaces is fine.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

PYTHON ?= python3.13
BASE_URL ?= http://127.0.0.1:$(or $(PORT),7071)

# Given by the user and handed on through the environment: neither make nor a shell reads them.
override export SUB := $(value SUB)
override export SCOPE := $(value SCOPE)
override export PORT := $(value PORT)
export BASE_URL

READY := .venv/.ready
VENV := .venv/bin/python

.PHONY: help run run-functions demo token test check migrate local-settings lock

help: ## List what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1 /p' $(MAKEFILE_LIST) | while read -r name what; do printf '  make %-14s %s\n' "$$name" "$$what"; done

run: $(READY) ## Serve on http://127.0.0.1:7071 (PORT=) with PostgreSQL and mongod, until Ctrl-C
	@exec $(VENV) -m devstack run

run-functions: $(READY) ## The same through the Azure Functions worker library
	@exec $(VENV) -m devstack run-functions

demo: $(READY) ## Guided tour of the running app (BASE_URL=)
	@exec $(VENV) -m devstack demo "$$BASE_URL"

token: $(READY) ## Print a bearer token: SUB=alice [SCOPE="…"]
	@exec $(VENV) -m devstack token

test: check ## All checks, then all tests on real stores of their own
	@exec $(VENV) -m pytest --cov --numprocesses 3 --dist loadfile --no-loadscope-reorder $(SLOW:%=--ignore %) $(REPORTS)

check: $(READY) ## Format, lint, types, layering, and whether generated files are current
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .
	@$(VENV) -m mypy
	@$(VENV) .venv/bin/lint-imports
	@$(VENV) -m devstack.lock
	@$(VENV) -m twins.openapi --check
	@$(VENV) -m proof --check

migrate: $(READY) ## Bring both stores to the newest revision
	@exec $(VENV) -m devstack migrate

# No uv settings of this machine, so that the files name no package index. Pins that still fit stay.
UV_COMPILE = $(VENV) -m uv --no-config pip compile --quiet $(if $(UPGRADE),--upgrade) --universal \
	--python-version 3.13 --custom-compile-command "make lock" pyproject.toml

local-settings: $(READY) ## Write local.settings.json for func start, while make run is up
	@exec $(VENV) -m devstack local-settings

lock: $(READY) ## Pin what pyproject.toml asks for (UPGRADE=1: the newest of everything)
	@$(UV_COMPILE) --output-file requirements.txt
	@$(UV_COMPILE) --extra migrate --group dev --constraints requirements.txt --output-file requirements-dev.txt

include infra/infra.mk
include bench/bench.mk
include proof/mutation.mk
include proof/proof.mk

# From scratch whenever a pin changes, so that nothing left over hides a missing requirement. All
# output on standard error: `make token` prints a token and nothing else, the first time too. Compiling
# every module would take longer than the download, and most are never imported.
$(READY): requirements.txt requirements-dev.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 13))' >&2 || { \
		echo "Python 3.13 is needed, and \"$(PYTHON)\" is not it. Install it (https://www.python.org/downloads/," >&2; \
		echo "or: pyenv install 3.13), or say where it is: make PYTHON=/path/to/python3.13 …" >&2; exit 1; }
	@test ! -L .venv || { echo ".venv is a link: what it leads to would be emptied. Remove the link." >&2; exit 1; }
	@echo "Installing the requirements into .venv (once) …" >&2
	@"$(PYTHON)" -m venv --clear .venv >&2
	@$(VENV) -m pip install --quiet --disable-pip-version-check --no-compile \
		-r requirements.txt -r requirements-dev.txt >&2
	@touch $@

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
override export OIDC := $(value OIDC)
export BASE_URL

# Some machines keep no bytecode: there, each process of a run compiles all that it imports, every time.
run run-functions: export PYTHONDONTWRITEBYTECODE :=

READY := .venv/.ready
TEST_READY := .venv/.ready-test
VENV := .venv/bin/python

.PHONY: help run run-functions demo token test check format migrate local-settings lock

help: ## List the targets
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The identity provider runs on Node, which is there for tests only.
run run-functions token: $(if $(OIDC),$(TEST_READY))

##@ Run

run: $(READY) ## Serve on http://127.0.0.1:7071 (PORT=) with both stores (OIDC=1: and an identity provider), until Ctrl-C
	@exec $(VENV) -m devstack run

run-functions: $(READY) ## Serve the same API through the Azure Functions worker library
	@exec $(VENV) -m devstack run-functions

demo: $(READY) ## Take a guided tour of the running app (BASE_URL=)
	@exec $(VENV) -m devstack demo "$$BASE_URL"

token: $(READY) ## Print a bearer token: SUB=alice [SCOPE="…"] [OIDC=1: by signing in to the identity provider]
	@exec $(VENV) -m devstack token

##@ Develop

# A part of the tests says nothing of the coverage of all, and runs without the checks.
ifdef T
test: $(TEST_READY)
	@exec $(VENV) -m pytest $(T)
else
test: check ## Run all checks, then all tests on real stores of their own; T=tests/consent: only these tests
	@$(VENV) -m tests.support.browser
	@exec $(VENV) -m pytest --cov --numprocesses 3 --dist loadfile --no-loadscope-reorder $(SLOW:%=--ignore %) $(REPORTS)
endif

check: $(TEST_READY) ## Check format, lint, types, layers and generated files
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .
	@$(VENV) -m mypy
	@$(VENV) .venv/bin/lint-imports
	@$(VENV) -m devstack.lock
	@$(VENV) -m twins.openapi --check
	@$(VENV) -m proof --check

format: $(TEST_READY) ## Format the code, and apply the linter's safe fixes
	@$(VENV) -m ruff check --fix-only .
	@$(VENV) -m ruff format .

migrate: $(READY) ## Bring both stores to the newest revision
	@exec $(VENV) -m devstack migrate

# No uv settings of this machine, so that the files name no package index. Pins that still fit stay.
UV_COMPILE = $(VENV) -m uv --no-config pip compile --quiet $(if $(UPGRADE),--upgrade) --universal \
	--python-version 3.13 --custom-compile-command "make lock" pyproject.toml

local-settings: $(READY) ## Write local.settings.json for func start, while make run is up
	@exec $(VENV) -m devstack local-settings

lock: $(TEST_READY) ## Pin the requirements of pyproject.toml (UPGRADE=1: their newest versions)
	@$(UV_COMPILE) --output-file requirements.txt
	@$(UV_COMPILE) --extra migrate --group dev --constraints requirements.txt --output-file requirements-dev.txt
	@$(UV_COMPILE) --extra migrate --group dev --group test --constraints requirements-dev.txt \
		--output-file requirements-test.txt

include infra/infra.mk
include bench/bench.mk
include proof/mutation.mk
include proof/proof.mk

# Compiling every module would take longer than the download, and most are never imported.
PIP_INSTALL := $(VENV) -m pip install --quiet --quiet --disable-pip-version-check --no-compile

# From scratch whenever a pin changes, so that nothing left over hides a missing requirement. All
# output on standard error: `make token` prints a token and nothing else, the first time too.
$(READY): requirements.txt requirements-dev.txt requirements-test.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 13))' >&2 || { \
		echo "Python 3.13 is needed, and \"$(PYTHON)\" is not it. Install it (https://www.python.org/downloads/," >&2; \
		echo "or: pyenv install 3.13), or say where it is: make PYTHON=/path/to/python3.13 …" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "\"$(PYTHON)\" lacks the module venv. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@test ! -L .venv || { echo ".venv is a link: what it leads to would be emptied. Remove the link." >&2; exit 1; }
	@echo "Installing the requirements into .venv (once) …" >&2
	@"$(PYTHON)" -m venv --clear .venv >&2
	@$(PIP_INSTALL) -r requirements.txt -r requirements-dev.txt >&2
	@touch $@

$(TEST_READY): $(READY)
	@echo "Installing what checks and tests need into .venv (once) …" >&2
	@$(PIP_INSTALL) -r requirements-test.txt >&2
	@touch $@

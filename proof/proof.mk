# Included by the Makefile, which sets VENV and READY.
.PHONY: proof resilience fuzz browser audit

# What of the tests has its own targets, since `make test` has no time for it.
SLOW := tests/bench tests/docs/test_browser.py tests/hostile/long tests/resilience

PROOF_VENV := .venv-proof
PROOF_TOOLS := bandit==1.9.4 pip-audit==2.10.1 squawk-cli==2.70.0

proof: $(READY) $(PROOF_VENV)/.ready $(if $(filter short,$(PROFILE)),,$(MUTATION_VENV)/.ready) ## Everything that shows the claims hold: PROFILE=short (minutes)
	@exec $(VENV) -m proof

resilience: $(READY) ## Of these, faults on real processes
	@exec $(VENV) -m proof resilience

fuzz: $(READY) ## Of these, hostile bytes and strings, and one client that uses up what it can
	@exec $(VENV) -m proof fuzz

browser: $(READY) ## Of these, create, decide, withdraw and decide again from the page of the docs
	@exec $(VENV) -m proof browser

audit: $(READY) $(PROOF_VENV)/.ready ## Of these, bandit, pip-audit and squawk
	@exec $(VENV) -m proof audit

# Their own environment: none of them is needed to work on the code.
$(PROOF_VENV)/.ready: proof/proof.mk
	@echo "Installing the audit tools into $(PROOF_VENV) (once) …" >&2
	@"$(PYTHON)" -m venv --clear $(PROOF_VENV) >&2
	@$(PROOF_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PROOF_TOOLS) >&2
	@touch $@

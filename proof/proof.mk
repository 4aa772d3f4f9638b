# Included by the Makefile, which sets VENV and TEST_READY.
.PHONY: proof resilience fuzz browser audit

# Tests with targets of their own: they take too long for `make test`.
SLOW := tests/bench tests/docs/test_browser.py tests/hostile/long tests/resilience

PROOF_VENV := .venv-proof
PROOF_TOOLS := bandit==1.9.4 pip-audit==2.10.1 squawk-cli==2.70.0

proof: $(TEST_READY) $(PROOF_VENV)/.ready $(if $(filter short,$(PROFILE)),,$(MUTATION_VENV)/.ready) ## Run all that backs the claims of the docs: PROFILE=short (minutes)
	@exec $(VENV) -m proof

resilience: $(TEST_READY) ## Part of proof: faults on real processes
	@exec $(VENV) -m proof resilience

fuzz: $(TEST_READY) ## Part of proof: hostile bytes and strings, and one client that exhausts what it can
	@exec $(VENV) -m proof fuzz

browser: $(TEST_READY) ## Part of proof: create, decide, withdraw and decide again on the documentation page
	@exec $(VENV) -m proof browser

audit: $(TEST_READY) $(PROOF_VENV)/.ready ## Part of proof: bandit, pip-audit and squawk
	@exec $(VENV) -m proof audit

# Their own environment: none of them is needed to work on the code.
$(PROOF_VENV)/.ready: proof/proof.mk
	@echo "Installing the audit tools into $(PROOF_VENV) (once) …" >&2
	@"$(PYTHON)" -m venv --clear $(PROOF_VENV) >&2
	@$(PROOF_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PROOF_TOOLS) >&2
	@touch $@

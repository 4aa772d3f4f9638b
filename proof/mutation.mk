# Included by the Makefile, which sets VENV and TEST_READY.
.PHONY: mutation

MUTATION_VENV := .local/mutation-venv
SITE_PACKAGES := import sysconfig; print(sysconfig.get_path("purelib"))

mutation: $(TEST_READY) $(MUTATION_VENV)/.ready ## Change the logic in small steps, each of which the tests must notice
	@exec $(VENV) -m proof mutation

# Its own environment, which sees the packages of the project's: mutmut runs the tests in its own process,
# and nothing else needs it.
$(MUTATION_VENV)/.ready: proof/mutation.mk $(TEST_READY)
	@echo "Installing mutmut into $(MUTATION_VENV) (once) …" >&2
	@"$(PYTHON)" -m venv --clear $(MUTATION_VENV) >&2
	@$(VENV) -c '$(SITE_PACKAGES)' > "$$($(MUTATION_VENV)/bin/python -c '$(SITE_PACKAGES)')/project.pth"
	@$(MUTATION_VENV)/bin/python -m pip install --quiet --disable-pip-version-check mutmut==3.8.1 >&2
	@touch $@

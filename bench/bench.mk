# Included by the Makefile, which sets VENV and READY.
.PHONY: bench bench-report

bench: $(READY) ## Measure against its peers: PROFILE=short (a minute), ROWS= (twins, up to 1000000)
	@command -v wrk >/dev/null || { [ "$$(id -u)" = 0 ] || sudo=sudo; \
		$$sudo apt-get update -qq && $$sudo apt-get install -y -qq wrk >&2; }
	@exec $(VENV) -m bench

bench-report: $(READY) ## Write bench/results.md and results.svg from the figures of the last run
	@exec $(VENV) -m bench --report

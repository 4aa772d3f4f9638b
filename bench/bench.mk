# Included by the Makefile, which sets VENV and TEST_READY.
.PHONY: bench bench-compare bench-report

WRK = command -v wrk >/dev/null || { [ "$$(id -u)" = 0 ] || sudo=sudo; \
	$$sudo apt-get update -qq && $$sudo apt-get install -y -qq wrk >&2; }

##@ Measure and prove

bench: $(TEST_READY) ## Measure against the peers: PROFILE=short (a minute), ROWS= (twins, up to 1000000), AGAIN= (parts)
	@$(WRK)
	@exec $(VENV) -m bench

bench-compare: $(TEST_READY) ## Measure against an earlier revision: BASE=main, FLOOR=0.97, ROUNDS=9
	@$(WRK)
	@exec $(VENV) -m bench.compare

bench-report: $(TEST_READY) ## Write bench/results.md and results.svg from the last run
	@exec $(VENV) -m bench --report

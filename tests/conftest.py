"""Fixtures and hooks of all tests stand in `tests.support`."""

pytest_plugins = ["tests.support.log_search", "tests.support.fixtures", "tests.support.telemetry"]

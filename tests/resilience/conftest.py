"""Stores that only one module has, since it breaks them."""

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("tests.resilience.harness")

from tests.support.stores import Stores, running_stores  # noqa: E402 - what is imported first is not rewritten


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    with running_stores() as running:
        yield running

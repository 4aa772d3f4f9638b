"""What the documents say is run against the application as a process."""

from collections.abc import Iterator

import pytest

from tests.docs.serving import serving


@pytest.fixture(scope="session")
def url(environment: dict[str, str]) -> Iterator[str]:
    with serving(environment) as address:
        yield address

"""What the documents say is run against the application as a process."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.conftest import Client, token
from tests.serving import serving


@pytest.fixture(scope="session")
def url(environment: dict[str, str]) -> Iterator[str]:
    with serving(environment) as service:
        yield service.url


@pytest.fixture
async def owner(url: str) -> AsyncIterator[Client]:
    """An account of that process, whose outbox is drained."""
    headers = {"Authorization": f"Bearer {token('docs-owner')}"}
    async with Client(base_url=url, headers=headers, trust_env=False) as client:
        yield client

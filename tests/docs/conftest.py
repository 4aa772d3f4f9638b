"""What the documents say is run against the application as a process."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.app import Client, token
from tests.support.serving import serving


@pytest.fixture(scope="module")
def url(drained: dict[str, str]) -> Iterator[str]:
    """No longer than a module: every two seconds it drains the outbox, of which other tests need all jobs."""
    with serving(drained) as service:
        yield service.url


@pytest.fixture
async def owner(url: str) -> AsyncIterator[Client]:
    """An account of that process, whose outbox is drained."""
    headers = {"Authorization": f"Bearer {token('docs-owner', azp='docs')}"}
    async with Client(base_url=url, headers=headers, trust_env=False) as client:
        yield client

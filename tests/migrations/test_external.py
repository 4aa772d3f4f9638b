"""Revision 13, forward and back with data: nothing is lost, and what the older schema cannot say is refused."""

import pytest
from pydantic import SecretStr

from devstack.postgres import SERVING
from tests.migrations.test_carry_over import AFTER, Database, client_on, database
from tests.support.app import id_of, make_twin
from tests.support.consent import grant, reason, verify
from tests.support.erasure import finish
from twins.app import create_app
from twins.settings import Settings

__all__ = ["database"]
REVISION, BEFORE = "20261129_13", "20261129_11"


async def test_forward_and_back_with_data(database: Database, settings: Settings) -> None:
    await database.migrate("upgrade", AFTER)
    async with client_on(database, settings, "owner") as owner:
        path, erased = [await make_twin(owner) for _ in range(2)]
        await grant(owner, path, "voice")
        assert (await owner.delete(erased)).status_code == 204
    await database.migrate("downgrade", BEFORE)
    async with database.owner() as connection:
        usage = await connection.fetchrow("SELECT * FROM account_usage")
        assert tuple(usage) == ("owner", 1, 0, 0)
    await database.migrate("upgrade", AFTER)

    async with client_on(database, settings, "owner") as owner:
        assert await reason(owner, path, "voice") == "granted"
        assert (await verify(owner, path))["valid"]
        await grant(owner, path, "face")
        mine = [{"type": "voice", "id": "x"}]
        assert (await owner.patch(path, json={"external_ids": mine})).json()["external_ids"] == mine
        assert (await owner.delete(path)).status_code == 204
    async with database.owner() as connection:
        assert await connection.fetchval("SELECT count(*) FROM account_usage") == 0


async def test_the_way_back_is_refused_while_something_would_be_lost(database: Database, settings: Settings) -> None:
    await database.migrate("upgrade", AFTER)
    dsn = database.stores.postgres.dsn_of(SERVING, database.name)
    app = create_app(settings.model_copy(update={"postgres_dsn": SecretStr(dsn), "mongodb_database": database.name}))
    async with client_on(database, settings, "owner") as owner:
        path = await make_twin(owner, external_ids=[{"type": "voice", "id": "x"}])
        await grant(owner, path, "voice", principal="paula")
    with pytest.raises(SystemExit, match="1 external ids"):
        await database.migrate("downgrade", BEFORE)
    async with client_on(database, settings, "owner") as owner:
        url = (await owner.delete(path)).headers["location"]
    await finish(app.state.context, url)
    await app.close()
    async with database.owner() as connection:
        assert await connection.fetchval("SELECT count(*) FROM external_ids WHERE twin_id = $1", id_of(path)) == 0
    with pytest.raises(SystemExit, match="1 records of people"):
        await database.migrate("downgrade", BEFORE)
    async with database.owner() as connection:
        await connection.execute("DELETE FROM erased_consents")
        await connection.execute("DELETE FROM journal_entries")
    await database.migrate("downgrade", BEFORE)

"""Revision 9, forward and back with data: the ledger is as it was, and what the older schema cannot say is refused."""

import pytest
from pydantic import SecretStr

from devstack.postgres import SERVING
from tests.migrations.test_carry_over import AFTER, Database, client_on, database
from tests.support.app import id_of, make_twin
from tests.support.consent import reason, verify
from twins.app import create_app
from twins.journal import service
from twins.settings import Settings

__all__ = ["database"]
BEFORE = "20261128_10"


async def test_forward_and_back_with_data(database: Database, settings: Settings) -> None:
    await database.migrate("upgrade", AFTER)
    async with client_on(database, settings, "owner") as owner:
        stopped, live = [await make_twin(owner) for _ in range(2)]
        assert (await owner.patch(stopped, json={"consent": False})).status_code == 200
    await database.migrate("downgrade", BEFORE)
    await database.migrate("upgrade", AFTER)

    async with client_on(database, settings, "owner") as owner:
        assert await reason(owner, stopped) == "withdrawn"
        assert await reason(owner, live) == "granted"
        for path in (stopped, live):
            assert (await verify(owner, path))["valid"]
        assert (await owner.patch(live, json={"consent": False})).status_code == 200


async def test_the_way_back_is_refused_while_something_would_be_lost(database: Database, settings: Settings) -> None:
    await database.migrate("upgrade", AFTER)
    dsn = database.stores.postgres.dsn_of(SERVING, database.name)
    app = create_app(settings.model_copy(update={"postgres_dsn": SecretStr(dsn), "mongodb_database": database.name}))
    context = app.state.context
    async with client_on(database, settings, "owner") as owner:
        path = await make_twin(owner)
    async with database.owner() as connection:
        await connection.execute("SELECT revoke_consent(twin_id, 'owner', 'owner', id, NULL) FROM consents")
    with pytest.raises(SystemExit, match="1 events that wait for the journal"):
        await database.migrate("downgrade", BEFORE)
    await service.write(context, id_of(path))
    await app.close()
    async with database.owner() as connection:
        await connection.execute("SELECT begin_restore('operator')")
    with pytest.raises(SystemExit, match="1 twins that a restore has closed"):
        await database.migrate("downgrade", BEFORE)
    async with database.owner() as connection:
        await connection.execute("UPDATE twins SET epoch = present_epoch()")
    await database.migrate("downgrade", BEFORE)

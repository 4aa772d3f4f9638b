"""Revision 12, forward and back with data: consents from before keep no controller, and the rest is as it was."""

import json

from joserfc import jws

from tests.migrations.test_carry_over import AFTER, Database, client_on, database
from tests.support.app import Client, make_twin
from tests.support.consent import grant, location, reason, renew, verify
from twins.settings import Settings

__all__ = ["database"]
BEFORE = "20261129_11"
GIVE = (
    "SELECT consent_id FROM give_consent($1, 'owner', 'owner', 'paula', '', 'api', '{old}', '1', 'en', 'Yes.', {rest})"
)


async def jurisdiction_of(client: Client, path: str) -> object:
    receipt = await client.get(f"{path}/receipt")
    assert receipt.status_code == 200, receipt.text
    return json.loads(jws.extract_compact(receipt.content).payload)["pii_processing"]["jurisdiction"]


async def test_forward_and_back_with_data(database: Database, settings: Settings) -> None:
    await database.migrate("upgrade", BEFORE)
    async with database.owner() as connection:
        sql = "INSERT INTO twins (owner, twin_name, use_case, tone) VALUES ('owner', 'a', 'b', 'c') RETURNING id"
        twin_id = await connection.fetchval(sql)
        old = await connection.fetchval(GIVE.replace("{rest}", "NULL, NULL, NULL, 'console'"), twin_id)
    path = f"/api/v1/twins/{twin_id}"
    before = f"{path}/consents/{old}"
    for _ in range(2):
        await database.migrate("upgrade", AFTER)
        async with client_on(database, settings, "owner") as owner:
            assert await jurisdiction_of(owner, before) is None
            assert await reason(owner, path, "old") == "granted"
            made = await grant(owner, await make_twin(owner, consent=False), "new")
            assert await jurisdiction_of(owner, location(made)) == "IE"
            assert (await verify(owner, path))["valid"]
        await database.migrate("downgrade", BEFORE)
    await database.migrate("upgrade", AFTER)
    async with client_on(database, settings, "owner") as owner:
        assert await jurisdiction_of(owner, location(made)) is None  # the schema of before did not know it
        renewed = await renew(owner, {"twin_id": str(twin_id), "id": str(old)})
        assert await jurisdiction_of(owner, location(renewed)) == "IE"
        assert (await verify(owner, path))["valid"]

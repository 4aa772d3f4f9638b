"""The restore drill of OPERATIONS: every no after a backup is there again before the gate says yes to anything."""

from tests.support.app import id_of, make_twin
from tests.support.consent import HOUR, NOTICE, after, grant, location, reason, renew, verify, withdraw
from tests.support.erasure import certificate_of, erase, erasure_of, finish
from tests.support.restore import UNCONFIRMED, Backups, People, closed, go_on, made_good, outcomes, refuse, standing
from twins.context import Context


async def test_the_drill(  # noqa: PLR0915 - one story
    people: People, backups: Backups, context: Context
) -> None:
    alice, paula, quinn, operator = people("alice"), people("paula"), people("quinn"), people("op", "twins:stop")
    named = {"principals": [people.name("paula"), people.name("quinn")], "consent": False}
    twin = {
        name: await make_twin(alice, **(named if name != "revoked" else {}))
        for name in (
            "revoked", "withdrawn", "refused", "stopped", "widened", "reopened", "narrowed", "operators",
            "persons", "erased", "untouched",
        )
    }  # fmt: skip
    voices = {name: await grant(paula, path, "voice", "face") for name, path in twin.items() if name != "revoked"}
    quinns = await grant(quinn, twin["persons"], "text")
    early = await refuse(paula, twin["widened"], "face")
    opened = await refuse(paula, twin["reopened"], "voice")
    owners = await make_twin(alice, consent=False)
    narrow = await grant(alice, owners, "voice", expires_at=after(1000 * HOUR))
    dump = await backups.dump()

    answer = await alice.patch(twin["revoked"], json={"consent": False})
    assert answer.status_code == 200
    await withdraw(paula, voices["withdrawn"])
    await paula.post(f"{location(voices['narrowed'])}/withdraw", json={"purposes": ["voice"]})
    refused = await refuse(paula, twin["refused"], "voice", "dance")
    stopped = await refuse(paula, twin["stopped"])
    await refuse(paula, twin["widened"], "voice")
    by_operator = await refuse(operator, twin["operators"], "voice")
    assert (await paula.delete(f"{twin['reopened']}/refusals/{opened['id']}")).status_code == 204
    erasure = await erase(alice, twin["erased"])
    persons = await quinn.delete("/api/v1/me")
    assert persons.status_code == 202
    made = await make_twin(alice)
    await withdraw(alice, (await alice.get(f"{made}/consents")).json()["items"][0])
    await renew(alice, narrow, expires_at=after(2 * HOUR))
    subjects = {entry["subject"] for entry in backups.journal()}
    assert {id_of(path) for name, path in twin.items() if name not in ("persons", "untouched")} <= subjects
    assert {id_of(made), id_of(owners)} <= subjects

    await backups.restore(dump)
    # Nobody has said so: the app notices, and closes the gate for every twin.
    await go_on(context)
    for path in (*twin.values(), owners):
        assert await reason(alice, path, "voice") == UNCONFIRMED
    assert (await alice.get(made)).status_code == 404

    done = backups.restored()
    assert done.returncode == 0, done.stderr
    assert await reason(alice, twin["untouched"], "voice") == UNCONFIRMED
    await made_good(context)

    assert await reason(alice, twin["revoked"]) == "withdrawn"
    assert await reason(alice, twin["withdrawn"], "voice") == "withdrawn"
    assert await reason(alice, twin["narrowed"], "voice") == "withdrawn"
    assert await reason(alice, twin["narrowed"], "face") == "granted"
    assert await reason(alice, twin["refused"], "voice") == "refused"
    assert await reason(alice, twin["refused"], "dance") == "refused"
    assert await reason(alice, twin["refused"], "face") == "granted"
    assert await reason(alice, twin["stopped"], "face") == "refused"
    assert await reason(alice, twin["widened"], "voice") == "refused"
    assert await reason(alice, twin["operators"], "voice") == "refused"
    assert await reason(alice, twin["persons"], "text") == "withdrawn"
    assert await reason(alice, owners, "voice") == "withdrawn"
    assert await reason(alice, twin["untouched"], "voice") == "granted"
    assert (await alice.get(twin["erased"])).status_code == 404
    assert await closed(context) == {}
    assert (await outcomes(context))[str(id_of(made))] == [("withdrawn", "there is no such twin")]

    # Refusals are whose they were, under their own ids.
    assert await standing(paula, twin["refused"]) == [(["dance", "voice"], refused["id"])]
    assert await standing(paula, twin["stopped"]) == [(None, stopped["id"])]
    assert await standing(paula, twin["widened"]) == [(["face", "voice"], early["id"])]
    assert await standing(operator, twin["operators"]) == [(["voice"], by_operator["id"])]
    assert await standing(paula, twin["reopened"]) == []
    voice = {"purposes": ["voice"], "notice": NOTICE}
    assert (await alice.post(f"{twin['refused']}/consents", json=voice)).status_code == 409
    assert (await paula.delete(f"{twin['refused']}/refusals/{refused['id']}")).status_code == 204

    # Erasures are done again, under their own ids.
    for who, path in ((alice, erasure), (quinn, persons.headers["location"])):
        await finish(context, path)
        assert (await certificate_of(who, await erasure_of(who, path)))["remaining"].items() >= {"consents": 0}.items()
    assert (await alice.get(location(quinns))).json()["principal"] != people.name("quinn")
    for path in (*(path for name, path in twin.items() if name != "erased"), owners):
        verified = await verify(alice, path)
        assert verified["valid"], (path, verified)

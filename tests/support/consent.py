"""What tests of consent have in common: their requests, and a clock that can be put forward."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from tests.support.app import Client, id_of

NOTICE = {"version": "2026-11", "language": "en", "text": "I agree that Alex speaks with my voice."}
HOUR = timedelta(hours=1)
MEMBERS = (
    *("recipients", "modalities", "territories", "uses", "representation", "signature", "evidence", "guardian"),
    *("compensation_ref", "jurisdiction", "withdrawal"),
)
"""The optional members of a consent's terms."""


def after(delay: timedelta) -> str:
    """Return a moment from now as a client writes it."""
    return (datetime.now(UTC) + delay).isoformat().replace("+00:00", "Z")


async def grant(client: Client, path: str, *purposes: str, **terms: Any) -> dict[str, Any]:
    """Record a consent of the twin at `path`, and return it."""
    body = {"purposes": purposes or ("general",), "notice": NOTICE} | terms
    answer = await client.post(f"{path}/consents", json=body)
    assert answer.status_code == 201, answer.text
    consent: dict[str, Any] = answer.json()
    return consent


async def withdraw(client: Client, consent: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(f"{location(consent)}/withdraw")
    assert answer.status_code == 200, answer.text
    withdrawn: dict[str, Any] = answer.json()
    return withdrawn


async def renew(client: Client, consent: dict[str, Any], **changes: Any) -> dict[str, Any]:
    answer = await client.post(f"{location(consent)}/renew", json=changes)
    assert answer.status_code == 201, answer.text
    renewed: dict[str, Any] = answer.json()
    return renewed


def location(consent: dict[str, Any]) -> str:
    return f"/api/v1/twins/{consent['twin_id']}/consents/{consent['id']}"


async def decide(client: Client, path: str, purpose: str = "general") -> dict[str, Any]:
    answer = await client.get(f"{path}/decision", params={"purpose": purpose})
    assert answer.status_code == 200, answer.text
    decision: dict[str, Any] = answer.json()
    assert decision["purpose"] == purpose
    assert decision["decision"] == (decision["reason"] == "granted")
    return decision


async def reason(client: Client, path: str, purpose: str = "general") -> str:
    return str((await decide(client, path, purpose))["reason"])


async def ledger(client: Client, path: str) -> list[dict[str, Any]]:
    """Return every entry of a twin's ledger, over as many pages as it has."""
    entries: list[dict[str, Any]] = []
    params: dict[str, Any] = {"limit": 100}
    while True:
        answer = await client.get(f"{path}/ledger", params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        entries += page["items"]
        if page["next_cursor"] is None:
            return entries
        params["cursor"] = page["next_cursor"]


async def transitions(client: Client, path: str) -> list[str]:
    return [entry["event"]["type"] for entry in await ledger(client, path)]


async def verify(client: Client, path: str) -> dict[str, Any]:
    answer = await client.get(f"{path}/ledger/verification")
    assert answer.status_code == 200, answer.text
    verification: dict[str, Any] = answer.json()
    return verification


async def pass_time(connection: asyncpg.Connection, time: timedelta, *paths: str) -> None:
    """Put the clock forward for some twins: what they agreed to moves as far into the past."""
    for table, columns in (
        ("consents", ("given_at", "not_before", "expires_at")),
        ("consent_states", ("given_at", "not_before", "expires_at")),
        ("withdrawals", ("withdrawn_at",)),
    ):
        moved = ", ".join(f"{column} = {column} - $2::interval" for column in columns)
        await connection.execute(
            f"UPDATE {table} SET {moved} WHERE twin_id = ANY ($1)", [id_of(path) for path in paths], time
        )

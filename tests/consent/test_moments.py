"""Moments at the ends of the calendar: kept, and read again in every place that shows them, or refused."""

import base64
import json
from typing import Any

import pytest

from tests.support.app import Client, is_problem, make_twin
from tests.support.consent import NOTICE, grant, ledger, location, reason, renew, verify

FIRST, LAST = "0001-01-01T00:00:00.000001Z", "9999-12-31T23:59:59.999998Z"


async def receipt(client: Client, consent: dict[str, Any]) -> dict[str, Any]:
    answer = await client.get(f"{location(consent)}/receipt")
    assert answer.status_code == 200, answer.text
    payload = answer.text.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return found


@pytest.mark.parametrize("member", ["not_before", "expires_at"])
@pytest.mark.parametrize(
    "moment",
    [
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31T22:59:59.999999-01:00",
        "0001-01-01T00:00:00Z",
        "0001-01-01T05:30:00.0+05:30",
    ],
)
async def test_the_first_and_the_last_moment_are_refused_since_the_store_has_them_for_infinity(
    alice: Client, member: str, moment: str
) -> None:
    path = await make_twin(alice, consent=False)
    consent = await grant(alice, path, "training")
    for url, body in (
        (f"{path}/consents", {"purposes": ["voice"], "notice": NOTICE, member: moment}),
        (f"{location(consent)}/renew", {member: moment}),
    ):
        refused = await alice.post(url, json=body)
        assert is_problem(refused, 422, "validation-failed")
        detail = (
            "must be later than 0001-01-01T00:00:00Z and earlier than 9999-12-31T23:59:59.999999Z;"
            " leave it out where there is no bound"
        )
        assert refused.json()["errors"] == [{"pointer": f"#/{member}", "detail": detail}]
    assert (await alice.get(f"{path}/consents")).json()["items"] == [consent]


@pytest.mark.parametrize(
    "moment",
    [
        "2027-02-30T00:00:00Z",
        "2027-13-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "2027-01-31T12:00:00.1234567Z",
        "2027-01-31T12:00:00123Z",
        "2027-01-31T12:00:00.Z",
        "2027-01-31T12:00:00,5Z",
        "2027-01-31T12:00:00+01:60",
        "٢٠٢٧-01-31T12:00:00Z",
        "",
    ],
)
async def test_what_is_no_moment_is_told_what_one_looks_like(alice: Client, moment: str) -> None:
    path = await make_twin(alice)
    refused = await alice.post(f"{path}/consents", json={"purposes": ["voice"], "notice": NOTICE, "expires_at": moment})

    assert is_problem(refused, 422, "validation-failed")
    detail = "must be an RFC 3339 time with an offset, to the microsecond at most, such as 2027-01-31T12:00:00Z"
    assert refused.json()["errors"] == [{"pointer": "#/expires_at", "detail": detail}]


async def test_the_moments_beside_them_are_kept_and_shown_everywhere(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    consent = await grant(alice, path, "voice", not_before=FIRST, expires_at=LAST)

    assert (consent["not_before"], consent["expires_at"]) == (FIRST, LAST)
    assert (await alice.get(location(consent))).json() == consent
    assert (await alice.get(f"{path}/consents")).json()["items"] == [consent]
    assert await reason(alice, path, "voice") == "granted"
    processing = (await receipt(alice, consent))["pii_processing"]
    assert (processing["valid_from"], processing["valid_until"]) == (FIRST, LAST)
    renewed = await renew(alice, consent, expires_at=LAST)
    assert renewed["expires_at"] == LAST
    assert len(await ledger(alice, path)) == 2
    assert (await verify(alice, path))["valid"] is True


async def test_a_year_has_four_digits_everywhere(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    consent = await grant(alice, path, "voice", not_before="0999-02-03T04:05:06Z")

    assert consent["not_before"] == "0999-02-03T04:05:06Z"
    assert (await receipt(alice, consent))["pii_processing"]["valid_from"] == "0999-02-03T04:05:06.000000Z"

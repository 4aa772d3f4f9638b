"""How many requests of one account an instance has at once: the gate, every no, verifications, and others apart."""

from collections.abc import Mapping
from typing import Any

from shared.http.bounds import COMMON, Bounds, Kind
from twins.settings import Settings

DECISION = Kind("decision")
NO = Kind("no", of_person=True)
"""Withdrawals, refusals and erasures: whatever else an account or its organisation does, each person may say no."""

VERIFICATION = Kind("verification")
VERIFICATIONS = 2
"""Each holds what all events of its ledger say: with sixteen of 10,000 events the collector took 80 ms at a time."""


def bounds(settings: Settings) -> Bounds:
    """Return the bounds of the settings."""
    return Bounds(
        {
            COMMON: settings.account_requests,
            DECISION: settings.account_decisions,
            NO: settings.account_noes,
            VERIFICATION: VERIFICATIONS,
        },
        settings.account_concurrency,
    )


def kind_of_patch(change: Any) -> Kind:
    """Return the kind of a change of a twin: `consent: false` is a no."""
    return NO if isinstance(change, Mapping) and change.get("consent") is False else COMMON

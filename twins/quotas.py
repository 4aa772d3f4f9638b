"""What an account may store. No quota refuses a no, nor what takes away."""

from shared.http.problems import Conflict

SHORT = 1024
"""Notices of so many bytes count nothing, nor do the other terms: the database writes no row for them."""


class QuotaExceeded(Conflict, slug="quota-exceeded", title="Quota exceeded"):
    """The owner stores as much as it may: twins, versions of personas, consents, or bytes of personas and long terms.

    Erase twins that are not needed, or ask the operator of the service for more. Withdrawals, refusals and
    erasures are never refused for this reason.
    """


def no_room_for_twins(most: int) -> QuotaExceeded:
    """Return the 409 for one twin more."""
    return QuotaExceeded(f"The owner has {most:,} twins, as many as it may have.")


def no_room_for_versions(versions: int, size: int) -> QuotaExceeded:
    """Return the 409 for one persona version more."""
    return QuotaExceeded(f"The owner may store {versions:,} versions of personas, and {size:,} bytes; this is beyond.")


def no_room_for_consents(most: int) -> QuotaExceeded:
    """Return the 409 for one consent more."""
    return QuotaExceeded(f"The owner's twins have {most:,} consents beside their first ones, as many as they may have.")


def no_room_for_names(most: int) -> QuotaExceeded:
    """Return the 409 for accounts in `principals` that this twin has not named before."""
    return QuotaExceeded(f"This twin has named {most:,} accounts: consents may name more, its principals may not.")


def no_room_for_terms(size: int) -> QuotaExceeded:
    """Return the 409 for a consent with one long notice more, or other long terms."""
    return QuotaExceeded(f"The owner may store {size:,} bytes; with the terms of this consent it would be more.")

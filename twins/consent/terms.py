"""The terms of a consent, and their renewal."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from shared.http.problems import ValidationFailed
from shared.stores.postgres import Record
from twins.consent.models import BOOLEAN_NOTICE, Consent, ConsentCreate, ConsentRenew, Notice
from twins.decision.models import GENERAL


@dataclass(frozen=True)
class Terms:
    """The terms of a consent, which never change."""

    principal: str
    method: str
    purposes: list[str]
    notice: Notice
    not_before: datetime | None
    expires_at: datetime | None

    @classmethod
    def general(cls, principal: str) -> Self:
        """Return the terms behind a twin's `consent: true`."""
        return cls(principal, "api", [GENERAL], BOOLEAN_NOTICE, None, None)

    @classmethod
    def wanted(cls, wanted: ConsentCreate, principal: str) -> Self:
        """Return the terms of a new consent of `principal`."""
        agreement = principal, wanted.method, sorted(wanted.purposes)
        return cls(*agreement, wanted.notice, wanted.not_before, wanted.expires_at)

    @classmethod
    def renewed(cls, old: Record, wanted: ConsentRenew) -> Self:
        """Return the terms of the renewal of `old`, equal and as long by default, without the withdrawn purposes.

        Raises `ValidationFailed`.
        """
        at, not_before, expires_at = old["at"], wanted.not_before, wanted.expires_at
        if old["standing"] == "not_yet_valid" and "not_before" not in wanted.model_fields_set:
            not_before = old["not_before"]
        if old["standing"] == "granted" and not_before is not None and not_before > at:
            detail = "must not be later than now: the twin would have no consent until then"
            raise ValidationFailed([{"pointer": "#/not_before", "detail": detail}])
        if old["expires_at"] is not None and "expires_at" not in wanted.model_fields_set:
            valid_for = old["expires_at"] - (old["not_before"] or old["given_at"])
            try:
                # One more tick must fit too: asyncpg reads the calendar's last moment as infinity.
                expires_at = (not_before or at) + valid_for + datetime.resolution - datetime.resolution
            except OverflowError:
                detail = "must be given: as long again would end after the year 9999"
                raise ValidationFailed([{"pointer": "#/expires_at", "detail": detail}]) from None
        # The stored notice passed the checks of its time: a limit that changes must not prevent its renewal.
        shown = {name: old[f"notice_{name}"] for name in Notice.model_fields}
        notice = wanted.notice or Notice.model_construct(**shown)
        ended = {item.purpose for item in Consent.of(old).withdrawn}
        purposes = [purpose for purpose in old["purposes"] if purpose not in ended]
        return cls(old["principal"], wanted.method or old["method"], purposes, notice, not_before, expires_at)

    @property
    def period(self) -> tuple[datetime | None, datetime | None]:
        """The start and the end."""
        return self.not_before, self.expires_at

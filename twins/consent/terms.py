"""The terms of a consent, and their renewal."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from shared.http.problems import ValidationFailed
from shared.stores.postgres import Record
from twins.consent.members import DETAILS, Members
from twins.consent.models import BOOLEAN_NOTICE, Consent, ConsentCreate, ConsentRenew, Notice
from twins.decision.models import GENERAL
from twins.ledger.chain import canonical
from twins.limits import ACCOUNT, key_of
from twins.parties import Label
from twins.quotas import SHORT


@dataclass(frozen=True)
class Terms:
    """The terms of a consent, which never change."""

    principal: str | None
    method: str
    purposes: list[str]
    notice: Notice
    not_before: datetime | None
    expires_at: datetime | None
    label: str | None = None
    recipients: list[dict[str, Any]] | None = None
    modalities: list[str] | None = None
    territories: list[str] | None = None
    guardian: str | None = None
    details: Mapping[str, Any] | None = None
    inherits_guardian: bool = False
    """Whether the guardian is that of the consent which these terms renew."""

    def __post_init__(self) -> None:
        """Raise `ValidationFailed` where the uses are not those of the purposes."""
        details = self.details or {}
        described = {use["purpose"] for use in details.get("uses", ())}
        if described - set(self.purposes):
            raise ValidationFailed([{"pointer": "#/uses", "detail": "must describe purposes of this consent"}])
        if details.get("representation", {}).get("kind") == "none" and described != set(self.purposes):
            detail = "must describe every purpose, since nobody represented the person"
            raise ValidationFailed([{"pointer": "#/uses", "detail": detail}])

    @classmethod
    def general(cls, principal: str) -> Self:
        """Return the terms behind a twin's `consent: true`."""
        return cls(principal, "api", [GENERAL], BOOLEAN_NOTICE, None, None)

    @classmethod
    def wanted(cls, wanted: ConsentCreate, default: str, account_of: Callable[[str], str]) -> Self:
        """Return the terms of a new consent, of `default` where it names nobody."""
        label, principal = None, default
        if isinstance(wanted.principal, Label):
            label, principal = wanted.principal.label, None
        elif wanted.principal is not None:
            principal = account_of(wanted.principal)
        agreement = principal, wanted.method, sorted(wanted.purposes)
        period = wanted.not_before, wanted.expires_at
        return cls(*agreement, wanted.notice, *period, label, **_members(wanted, account_of, {}))

    @classmethod
    def renewed(cls, old: Record, wanted: ConsentRenew, account_of: Callable[[str], str]) -> Self:
        """Return the terms of the renewal of `old`, equal and as long by default, without the withdrawn purposes.

        Raises `ValidationFailed`.
        """
        # The stored notice passed the checks of its time: a limit that changes must not prevent its renewal.
        shown = {name: old[f"notice_{name}"] for name in Notice.model_fields}
        notice = wanted.notice or Notice.model_construct(**shown)
        record = Consent.of(old)
        ended = {item.purpose for item in record.withdrawn} | {*record.taken}
        purposes = [purpose for purpose in old["purposes"] if purpose not in ended]
        if wanted.purposes is not None:
            if not set(wanted.purposes) <= set(purposes):
                detail = "must be purposes of this consent that have not ended"
                raise ValidationFailed([{"pointer": "#/purposes", "detail": detail}])
            purposes = sorted(wanted.purposes)
        agreement = old["principal"], wanted.method or old["method"], purposes, notice
        members = _members(wanted, account_of, old, purposes)
        members["inherits_guardian"] = "guardian" not in wanted.model_fields_set
        return cls(*agreement, *_period(old, wanted), old["label"], **members)

    @property
    def period(self) -> tuple[datetime | None, datetime | None]:
        """The start and the end."""
        return self.not_before, self.expires_at

    @property
    def size(self) -> int:
        """The bytes that count, of all but the notice."""
        _, recipients, _, _, _, details = self.members
        size = len((recipients or "").encode()) + len((details or "").encode())
        return size if size > SHORT else 0

    @property
    def members(self) -> tuple[str | None, str | None, list[str] | None, list[str] | None, str | None, str | None]:
        """The members of the second edition, as the database takes them."""
        recipients = None if self.recipients is None else canonical(self.recipients)
        details = canonical(self.details) if self.details else None
        return self.label, recipients, self.modalities, self.territories, self.guardian, details


def _period(old: Record, wanted: ConsentRenew) -> tuple[datetime | None, datetime | None]:
    """Return the start and the end of a renewal; raises `ValidationFailed`."""
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
    return not_before, expires_at


def _members(
    wanted: Members, account_of: Callable[[str], str], old: Mapping[str, Any], purposes: list[str] | None = None
) -> dict[str, Any]:
    """Return the members of the second edition: those of `wanted`, and of `old` what it leaves out."""
    said = wanted.model_fields_set
    found: dict[str, Any] = {name: old.get(name) for name in ("modalities", "territories", "guardian")}
    found["recipients"] = json.loads(old["recipients"]) if old.get("recipients") else None
    details = json.loads(old["details"]) if old.get("details") else {}
    if purposes is not None and "uses" in details:
        details["uses"] = [use for use in details["uses"] if use["purpose"] in purposes]
    for name in said & {"modalities", "territories"}:
        values = getattr(wanted, name)
        found[name] = values and sorted(values)
    if "recipients" in said:
        found["recipients"] = wanted.recipients and _recipients(wanted, account_of)
    if "guardian" in said:
        found["guardian"] = wanted.guardian and account_of(wanted.guardian.id)
        details["relation"] = wanted.guardian and wanted.guardian.relation
    details |= wanted.model_dump(mode="json", include=said & set(DETAILS), exclude_none=True)
    for name in said:
        if getattr(wanted, name) is None:
            details.pop(name, None)
    details = {name: value for name, value in details.items() if value}
    return found | {"details": details or None}


def _recipients(wanted: Members, account_of: Callable[[str], str]) -> list[dict[str, Any]]:
    """Return recipients in order, each with all its members."""
    found = []
    for one in wanted.recipients or ():
        account = account_of(f"{one.issuer}\n{one.id}") if one.type == ACCOUNT and one.issuer else ""
        is_bare = account == one.id
        found.append({"type": one.type, "id": one.id, "issuer": None if is_bare else one.issuer, "name": one.name})
    return sorted(found, key=lambda one: key_of(one["type"], one["id"], one["issuer"]))

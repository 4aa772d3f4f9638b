"""Consents in requests and answers."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, override
from uuid import UUID

from fastapi import Path
from pydantic import ConfigDict, Field

from shared.http.fields import Id, Input, Moment, Output, Timestamp, each_once
from shared.http.paging import Page
from shared.http.text import PROSE, Phrase, Text
from twins import parent
from twins.assurance import MEANING, Assurance, word_of
from twins.consent.members import Language, MemberRecords, Members
from twins.decision.models import Purpose
from twins.parties import Giver, Person

ConsentId = Annotated[Id, Path(description="The consent's id.")]


def address(twin_id: UUID, consent_id: UUID) -> str:
    """Return the path of a consent."""
    return f"{parent.address(twin_id)}/consents/{consent_id}"


Purposes = Annotated[
    list[Purpose], each_once("a purpose"), Field(min_length=1, max_length=20, json_schema_extra={"uniqueItems": True})
]
"""1 to 20 purposes, each of them once."""


class Notice(Input):
    """The exact text that was shown to the person, and its version."""

    version: Phrase
    language: Language
    text: Annotated[
        str,
        Text(20_000, PROSE, verbatim=True),
        Field(description="The text exactly as it was shown. It is kept, and hashed, byte for byte as you send it."),
    ]


BOOLEAN_NOTICE = Notice(version="1", language="en", text="I agree that this AI twin speaks in my name.")
"""The notice behind a twin's `consent: true`."""

_VOICE: dict[str, Any] = {
    "purposes": ["voice", "conversation"],
    "notice": {"version": "2026-11", "language": "en", "text": "I agree that Alex speaks with my voice."},
    "principal": "alex@example.com",
    "method": "web-form",
    "expires_at": "2030-01-01T00:00:00Z",
}


class ConsentCreate(Members):
    """A consent that a person gave. Its terms never change."""

    model_config = ConfigDict(json_schema_extra={"examples": [_VOICE]})

    purposes: Annotated[Purposes, Field(description="The purposes that the person agreed to.")]
    notice: Notice
    principal: Annotated[
        Person | None, Field(description="The person's account, by default the caller's, or a label for them.")
    ] = None
    method: Annotated[Purpose, Field(description="How the person agreed, such as `web-form` or `phone`.")] = "api"
    not_before: Annotated[Moment | None, Field(description="The start of the consent; by default now.")] = None
    expires_at: Annotated[Moment | None, Field(description="The end of the consent; by default none.")] = None


class ConsentRenew(Members):
    """The terms that a renewal changes. All others stay, and the new consent lasts as long as the old one.

    `null` takes a limit away, or a statement.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"expires_at": "2031-01-01T00:00:00Z"}]})

    purposes: Annotated[
        Purposes | None, Field(description="Of the consent's purposes those that go on; the others end.")
    ] = None
    notice: Notice | None = None
    method: Purpose | None = None
    not_before: Moment | None = None
    expires_at: Moment | None = None


class ConsentWithdraw(Input):
    """The purposes to withdraw, by default every purpose that the consent and its renewals ever had."""

    # Documentation pages send the first example as it is: it must fit any consent.
    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"purposes": ["voice"]}]})

    purposes: Purposes | None = None


class NoticeRecord(Output):
    """The notice of a consent."""

    version: str
    language: str
    text: str
    sha256: str


_BY = (
    "`principal`: the account that this consent names. `person`: another account that the twin names. "
    "`operator`: somebody on a person's behalf. `owner`: the twin's owner."
)

State = Literal["given", "withdrawn", "expired", "replaced"]
Side = Literal["principal", "person", "operator", "owner"]


class Withdrawal(Output):
    """The end of one purpose of a consent."""

    purpose: str
    at: Timestamp
    by: Annotated[Side, Field(description=_BY)]


class Consent(MemberRecords):
    """A consent, and its state at the moment of the answer."""

    id: UUID
    twin_id: UUID
    state: Annotated[State, Field(description="`replaced`: the one in `replaced_by` renewed it, or took its purposes.")]
    purposes: list[str]
    notice: NoticeRecord
    principal: Annotated[
        Giver, Field(description="The person's account or label; of an erased account a random pseudonym.")
    ]
    assurance: Annotated[Assurance, Field(description=MEANING)]
    source: Annotated[UUID | None, Field(description="The person's own consent, of which this is a narrower one.")]
    method: str
    given_at: Timestamp
    not_before: Timestamp | None
    expires_at: Timestamp | None
    withdrawn: Annotated[list[Withdrawal], Field(description="The purposes that have ended: when, and by whom.")]
    withdrawn_at: Annotated[Timestamp | None, Field(description="The time of the last of these.")]
    taken: Annotated[list[str], Field(description="The purposes that another consent holds now, a person's own.")]
    withdrawn_by: Annotated[Side | None, Field(description=_BY)]
    renews: UUID | None
    replaced_by: UUID | None

    @classmethod
    @override
    def of(cls, row: Mapping[str, Any]) -> Self:
        notice = {name: row[f"notice_{name}"] for name in ("version", "language", "text")}
        notice["sha256"] = row["notice_sha256"].hex()
        state = "given" if row["standing"] in ("granted", "not_yet_valid") else row["standing"]
        withdrawn = [Withdrawal.model_validate(item) for item in json.loads(row["withdrawn"])]
        last = max(withdrawn, key=lambda item: item.at, default=None)
        details = json.loads(row["details"]) if row["details"] else {}
        if row["guardian"]:
            details["guardian"] = {"relation": details["relation"], "id": row["guardian"]}
        return super().of(
            {
                **row,
                **details,
                "guardian": details.get("guardian"),
                "recipients": row["recipients"] and json.loads(row["recipients"]),
                "principal": row["principal"] or {"label": row["label"]},
                "assurance": word_of(row["assurance"]),
                "notice": notice,
                "state": state,
                "withdrawn": withdrawn,
                "withdrawn_at": last and last.at,
                "taken": sorted(row["taken"] or ()),
                "withdrawn_by": last and last.by,
            }
        )


class ConsentPage(Page):
    """One page of consents; `next_cursor` is null on the last."""

    items: list[Consent]

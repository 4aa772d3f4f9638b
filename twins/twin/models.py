"""Twins in requests and answers."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, Self, override
from uuid import UUID

from pydantic import ConfigDict, Field

from shared.http.fields import Input, Output, Timestamp, each_once
from shared.http.paging import Page
from shared.http.text import Name, Phrase
from twins.external import ExternalId
from twins.parties import Party, Principal

_ALEX: dict[str, Any] = {"twin_name": "Alex", "use_case": "customer support", "tone": "professional", "consent": True}
_NOW = "2026-11-24T10:50:00.123456Z"
_STORED = {
    "id": "019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b",
    **_ALEX,
    "principals": [],
    "external_ids": [{"type": "elevenlabs-voice", "id": "21m00T"}],
    "created_at": _NOW,
    "updated_at": _NOW,
}


Principals = Annotated[
    list[Principal],
    each_once("an account"),
    Field(
        max_length=20,
        json_schema_extra={"uniqueItems": True},
        description="The accounts of the people that the twin speaks for; they may refuse and agree themselves.",
    ),
]


ExternalIds = Annotated[
    list[ExternalId],
    each_once("an id"),
    Field(
        max_length=20,
        json_schema_extra={"uniqueItems": True},
        description="What others call the twin. An id of another twin of yours moves here, until a person has spoken.",
    ),
]


class Filters(NamedTuple):
    """The filters of a list of twins; None filters nothing."""

    q: str | None
    use_case: str | None
    tone: str | None
    consent: bool | None
    external_id: ExternalId | None = None


class TwinCreate(Input):
    """The members of a new twin."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ALEX]})

    twin_name: Annotated[Name, Field(description="The twin's name.")]
    use_case: Annotated[Phrase, Field(description="The twin's use.")]
    tone: Annotated[Phrase, Field(description="The twin's way of speaking.")]
    consent: Annotated[bool, Field(description="Whether the person that the twin speaks for agrees.")]
    principals: Principals = Field(default_factory=list)
    external_ids: ExternalIds = Field(default_factory=list)


class TwinPatch(Input):
    """Members of a twin to change (RFC 7396); none may be removed, so null is refused."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"tone": "warm"}]})

    # The factories only make the members optional: no code reads a member that is not set.
    twin_name: Name = Field(default_factory=str)
    use_case: Phrase = Field(default_factory=str)
    tone: Phrase = Field(default_factory=str)
    consent: bool = Field(default_factory=bool)
    principals: Principals = Field(default_factory=list)
    external_ids: ExternalIds = Field(default_factory=list)


class Twin(Output):
    """A twin: an AI persona that one owner manages."""

    model_config = ConfigDict(json_schema_extra={"examples": [_STORED]})

    id: UUID
    twin_name: str
    use_case: str
    tone: str
    consent: Annotated[bool, Field(description="Whether the twin may be used now.")]
    principals: list[Party]
    external_ids: list[ExternalId]
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    @override
    def of(cls, row: Mapping[str, Any]) -> Self:
        given = row["external_ids"]  # null for most: to parse "[]" for each twin took a twentieth of a list's time
        return super().of({**row, "external_ids": json.loads(given) if given else []})


class TwinPage(Page):
    """One page of twins; `next_cursor` is null on the last."""

    items: list[Twin]

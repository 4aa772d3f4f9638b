"""Personas in requests, in answers and in the store."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field

from shared.http.fields import Input, Moment, Output, Timestamp
from shared.http.merge_patch import merge
from shared.http.paging import Page
from shared.http.problems import ValidationFailed
from shared.http.text import Phrase, Prose, Text
from twins import parent

# RFC 5646 §2.1: langtag, without the grandfathered tags.
_LANGTAG = (
    r"^([A-Za-z]{2,3}(-[A-Za-z]{3}){0,3}|[A-Za-z]{4,8})"
    r"(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?(-([A-Za-z0-9]{5,8}|[0-9][A-Za-z0-9]{3}))*"
    r"(-[0-9A-WY-Za-wy-z](-[A-Za-z0-9]{2,8})+)*(-[Xx](-[A-Za-z0-9]{1,8})+)?$"
)


def _language(tag: str) -> str:
    """Return the tag in the case of RFC 5646 §2.1.1: `zh-Hant-TW`."""
    if not re.fullmatch(_LANGTAG, tag):
        raise ValueError("must be a language tag (BCP 47), such as pt-BR")
    # From the first singleton on, all is in lower case.
    head, *extensions = re.split("(?=-[0-9a-z]-)", tag.lower(), maxsplit=1)
    head = re.sub(r"-[a-z]{2}\b", lambda region: region[0].upper(), head)
    head = re.sub(r"-[a-z]{4}\b", lambda script: script[0].title(), head)
    return "".join([head, *extensions])


Language = Annotated[str, Field(max_length=63, json_schema_extra={"pattern": _LANGTAG}), AfterValidator(_language)]
"""A well-formed BCP 47 language tag."""


def address(twin_id: UUID, version: int) -> str:
    """Return the path of a version of a persona."""
    return f"{parent.address(twin_id)}/persona/versions/{version}"


Sentence = Annotated[str, Text(500)]
"""1 to 500 characters on one line."""


class Style(Input):
    """The twin's style of writing; a few words for each aspect."""

    formality: Phrase | None = None
    verbosity: Phrase | None = None
    humor: Phrase | None = None
    emoji: Phrase | None = None


class Fact(Input):
    """A fact that the twin knows, and its source."""

    text: Prose
    source: Sentence | None = None


class Example(Input):
    """One exchange that shows the twin's way of answering."""

    user: Prose
    twin: Prose


_ALEX: dict[str, Any] = {
    "summary": "Alex helps customers of a bicycle shop.",
    "greeting": "Hi, Alex here. What can I do for you?",
    "languages": ["en", "pt-BR"],
    "traits": ["patient", "precise"],
    "style": {"formality": "neutral", "verbosity": "short"},
    "boundaries": ["Never promises a delivery date."],
    "facts": [{"text": "The shop opens at nine.", "source": "https://example.com/hours"}],
    "examples": [{"user": "Is my bike ready?", "twin": "Let me look. What is the order number?"}],
    "extensions": {"crm.id": 7},
}
_FIRST = {**_ALEX, "version": 1, "created_at": "2026-11-24T10:50:00.123456Z"}


class Persona(Input):
    """The character of a twin. Every member is optional; `extensions` is stored without a change."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ALEX]})

    summary: Prose | None = None
    greeting: Prose | None = None
    languages: Annotated[list[Language], Field(max_length=50)] = []
    traits: Annotated[list[Phrase], Field(max_length=100)] = []
    style: Style = Style()
    boundaries: Annotated[list[Sentence], Field(max_length=100)] = []
    facts: Annotated[list[Fact], Field(max_length=1000)] = []
    examples: Annotated[list[Example], Field(max_length=200)] = []
    extensions: dict[str, Any] = {}

    def content(self) -> dict[str, Any]:
        """Return what it says: all that a version of it has to keep."""
        return self.model_dump(include=set(Persona.model_fields))

    def merged(self, change: "PersonaPatch") -> "Persona":
        """Return it with `change` merged into it (RFC 7396); raises Pydantic's `ValidationError`."""
        return Persona.model_validate(merge(self.content(), change.model_dump(exclude_unset=True)))


_READ_ONLY = Field(json_schema_extra={"readOnly": True})


class PersonaPut(Persona):
    """A whole persona; the read-only members of the latest version may be sent as they were read (RFC 7643 §7)."""

    version: Annotated[int | None, _READ_ONLY] = None
    created_at: Annotated[Moment | None, _READ_ONLY] = None

    def check_read_only(self, latest: Mapping[str, Any]) -> None:
        """Raise `ValidationFailed` for read-only members that are not those of the latest version."""
        detail = "is read-only: leave it out, or send it as the latest version has it"
        stale = [name for name in ("version", "created_at") if getattr(self, name) not in {None, latest.get(name)}]
        if stale:
            raise ValidationFailed([{"pointer": f"#/{name}", "detail": detail} for name in stale])


class PersonaPatch(Input):
    """Members of a persona to change (RFC 7396); null removes one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"style": {"formality": "casual"}}]})

    summary: Prose | None = None
    greeting: Prose | None = None
    languages: Annotated[list[Language], Field(max_length=50)] | None = None
    traits: Annotated[list[Phrase], Field(max_length=100)] | None = None
    style: Style | None = None
    boundaries: Annotated[list[Sentence], Field(max_length=100)] | None = None
    facts: Annotated[list[Fact], Field(max_length=1000)] | None = None
    examples: Annotated[list[Example], Field(max_length=200)] | None = None
    extensions: dict[str, Any] | None = None


class PersonaVersion(Persona):
    """One immutable version of a persona."""

    model_config = ConfigDict(json_schema_extra={"examples": [_FIRST]})

    version: int
    created_at: Timestamp

    @classmethod
    def of(cls, persona: Persona, version: int, created_at: datetime) -> "PersonaVersion":
        """Return a checked persona as a version."""
        return cls.model_construct(**persona.__dict__ | {"version": version, "created_at": created_at})


class VersionEntry(Output):
    """A version's number, and the time of its creation."""

    version: int
    created_at: Timestamp


class VersionPage(Page):
    """One page of a persona's history; `next_cursor` is null on the last."""

    items: list[VersionEntry]


class Message(Output):
    """A chat message, in the form of chat APIs."""

    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(Output):
    """A persona compiled to chat messages: the system prompt, then its examples as exchanges."""

    messages: list[Message]


class PatchOperation(Output):
    """One operation of a JSON Patch (RFC 6902)."""

    op: Literal["add", "remove", "replace", "move", "copy", "test"]
    path: str
    value: Any = None
    from_: Annotated[str | None, Field(alias="from")] = None

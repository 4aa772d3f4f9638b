"""Personas as they cross the wire, and as they are stored."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from shared.models import Input, Output, Timestamp
from shared.text import Phrase, Prose, Text

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
    first, *rest = tag.lower().split("-")
    found = [first]
    for part in rest:
        before_singleton = all(len(earlier) > 1 for earlier in found)
        if before_singleton and re.fullmatch("[a-z]{2}", part):
            found.append(part.upper())
        elif before_singleton and re.fullmatch("[a-z]{4}", part):
            found.append(part.capitalize())
        else:
            found.append(part)
    return "-".join(found)


Language = Annotated[str, Field(max_length=63, json_schema_extra={"pattern": _LANGTAG}), AfterValidator(_language)]
"""A well-formed BCP 47 language tag."""
Sentence = Annotated[str, Text(500)]
"""1 to 500 characters on one line."""


class Style(Input):
    """How the twin writes, each in a word or a few."""

    formality: Phrase | None = None
    verbosity: Phrase | None = None
    humor: Phrase | None = None
    emoji: Phrase | None = None


class Fact(Input):
    """Something the twin knows, and where that comes from."""

    text: Prose
    source: Sentence | None = None


class Example(Input):
    """One exchange that shows how the twin answers."""

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


class Persona(Input):
    """What the twin is like. Everything is optional; `extensions` is kept exactly as given."""

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

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**_ALEX, "version": 1, "created_at": "2026-11-24T10:50:00.123456Z"}]}
    )

    version: int
    created_at: Timestamp

    @classmethod
    def of(cls, persona: Persona, version: int, created_at: datetime) -> "PersonaVersion":
        """Return a persona that has been checked as the version it is."""
        return cls.model_construct(**persona.__dict__ | {"version": version, "created_at": created_at})


class VersionEntry(Output):
    """One line of a persona's history."""

    version: int
    created_at: Timestamp


class Message(Output):
    """A chat message, in the shape that chat APIs take."""

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

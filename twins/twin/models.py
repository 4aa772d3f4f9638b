"""Twins as they cross the wire."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import ConfigDict, Field

from shared.models import Input, Output, Timestamp
from shared.text import Name, Phrase

_ALEX: dict[str, Any] = {
    "twin_name": "Alex",
    "use_case": "customer support",
    "tone": "professional",
    "consent": True,
}


class TwinCreate(Input):
    """A twin to make."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ALEX]})

    twin_name: Annotated[Name, Field(description="What the twin is called.")]
    use_case: Annotated[Phrase, Field(description="What the twin is for.")]
    tone: Annotated[Phrase, Field(description="How the twin speaks.")]
    consent: Annotated[bool, Field(description="Whether the person it speaks for agrees to it.")]


class TwinPatch(Input):
    """Members of a twin to change (RFC 7396); none may be removed, so null is refused."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"tone": "warm"}]})

    # The factories only mark the members optional: what is not set is never read.
    twin_name: Name = Field(default_factory=str)
    use_case: Phrase = Field(default_factory=str)
    tone: Phrase = Field(default_factory=str)
    consent: bool = Field(default_factory=bool)


class Twin(Output):
    """A twin."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b",
                    **_ALEX,
                    "created_at": "2026-11-24T10:50:00.123456Z",
                    "updated_at": "2026-11-24T10:50:00.123456Z",
                }
            ]
        }
    )

    id: UUID
    twin_name: str
    use_case: str
    tone: str
    consent: Annotated[bool, Field(description="Whether the twin may be used now.")]
    created_at: Timestamp
    updated_at: Timestamp

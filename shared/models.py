"""Bases of the models that cross the wire."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict


class Input(BaseModel):
    """What a client sends: unknown members are refused, and a number is not a string."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Output(BaseModel):
    """What a client gets; built from rows that the database has already checked."""

    model_config = ConfigDict(from_attributes=True)


def _digits(value: object) -> object:
    if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
        raise ValueError("must be a whole number in decimal digits")
    return value


def _true_or_false(value: object) -> object:
    if isinstance(value, str) and value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value


Digits = BeforeValidator(_digits)
"""For an `int` in a path or query, since Pydantic alone also reads `5.0`, `+5` and `5_0`.

After the bounds in an `Annotated`: before them it would keep them out of the JSON schema.
"""
Flag = Annotated[bool, BeforeValidator(_true_or_false)]
"""A boolean in a query; Pydantic alone also reads `yes` and `1`."""

Timestamp = Annotated[datetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
"""An RFC 3339 time, in UTC with `Z`."""

TwinId = Annotated[UUID, Path(description="The twin's id.")]

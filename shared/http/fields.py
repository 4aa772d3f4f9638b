"""Base classes and field types of request and response models."""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema


class Input(BaseModel):
    """A request body: unknown members are refused, and a number is not a string."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Output(BaseModel):
    """A response body, built from rows that the database has already checked."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return the model of a row, whose other columns do not matter."""
        return cls.model_validate(dict(row))


def _spelled(pattern: str, message: str) -> BeforeValidator:
    is_spelled = re.compile(pattern).fullmatch

    def check(value: object) -> object:
        if isinstance(value, str) and not is_spelled(value):
            raise ValueError(message)
        return value

    return BeforeValidator(check)


Digits = _spelled("[0-9]+", "must be a whole number in decimal digits")
"""For an `int` in a path or query, since Pydantic alone also accepts `5.0`, `+5` and `5_0`.

It stands after the bounds in an `Annotated`: before them it would keep the bounds out of the JSON schema.
"""
Flag = Annotated[bool, _spelled("true|false", "must be true or false")]
"""A boolean in a query; Pydantic alone also accepts `yes` and `1`."""


def each_once[T](one: str) -> AfterValidator:
    """Return the check of a list that names nothing twice; `one` is what it names, such as `an account`."""

    def check(items: list[T]) -> list[T]:
        if len(set(items)) != len(items):
            raise ValueError(f"must not name {one} twice")
        return items

    return AfterValidator(check)


Timestamp = datetime
"""An RFC 3339 time, in UTC with `Z`: as PostgreSQL's driver returns each."""

Id = Annotated[
    UUID,
    _spelled(
        "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "must be a UUID in lower case with hyphens, as answers spell it"
    ),
]
"""An id in a request: each has one spelling only, so that a path names what it names by itself."""

# No more digits than are kept: a time is stored as it was sent.
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-5][0-9])"
)

# asyncpg reads these two as PostgreSQL's infinities.
_INFINITIES = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def _moment(value: object) -> datetime:
    moment = None
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        with suppress(ValueError, OverflowError):
            moment = datetime.fromisoformat(value.upper()).astimezone(UTC)
    if moment is None:
        raise ValueError(
            "must be an RFC 3339 time with an offset, to the microsecond at most, such as 2027-01-31T12:00:00Z"
        )
    if moment in _INFINITIES:
        raise ValueError(
            "must be later than 0001-01-01T00:00:00Z and earlier than 9999-12-31T23:59:59.999999Z;"
            " leave it out where there is no bound"
        )
    return moment


Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
"""A time in a request."""

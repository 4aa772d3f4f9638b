"""Who is responsible for the records, and what a consent's receipt says of where and for how long they are kept."""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from shared.http.text import Text

type _Words = Annotated[str, Text(500)]
type _Place = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
"""An ISO 3166 code of a country or a part of one, such as `IE` or `US-CA`, or `EU`."""

_DURATION = re.compile(r"P(?=.)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?")


def is_duration(text: str) -> bool:
    """Return whether it is a duration of ISO 8601, such as `P10Y`, and not words."""
    return _DURATION.fullmatch(text) is not None


class Controller(BaseModel):
    """The setting `CONTROLLER`: required members of ISO/IEC TS 27560 that only an operator knows.

    Each consent keeps the setting of the moment in which it is recorded, so that its receipt stays true.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: _Words
    """The legal name of the controller."""
    address: _Words
    contact: _Words
    """An e-mail address, a telephone number or a page."""
    storage_locations: tuple[_Place, ...] = Field(min_length=1, max_length=50)
    retention_period: _Words
    """A duration of ISO 8601, or the event that ends it."""
    jurisdiction: _Place
    withdrawal_method: _Words
    """How a person withdraws: a page or a sentence."""

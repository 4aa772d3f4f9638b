"""Problems that more than one resource has."""

from shared.errors import Forbidden, NotFound


class ConsentRequired(Forbidden):
    """The twin may not be used: the person it speaks for has not agreed, or no longer does.

    `reason` is that of the gate. Record their consent first; reading what is stored needs none.
    """

    slug, title = "consent-required", "Consent required"


def no_twin() -> NotFound:
    """Return the one answer for a twin that does not exist, is erased, or is another owner's."""
    return NotFound("There is no such twin.")

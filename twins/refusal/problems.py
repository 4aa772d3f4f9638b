"""Problems of refusals."""

from shared.http.problems import NotFound


def no_refusal() -> NotFound:
    """Return the one answer for a refusal that does not exist, or belongs to another account."""
    return NotFound("There is no such refusal.")

"""Problems of the gate."""

from shared.http.problems import Forbidden


class ConsentRequired(Forbidden, slug="consent-required", title="Consent required"):
    """The twin may not be used: the person that it speaks for has not agreed, or no longer agrees.

    `reason` is the gate's reason. Record the person's consent first; reading stored data needs no consent.
    """

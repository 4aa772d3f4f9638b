"""Problems of consents."""

from shared.http.problems import Conflict


class ConsentActive(Conflict, slug="consent-active", title="Consent active"):
    """The twin has a live or future grant for one of these purposes: `consent_id`.

    Renew that consent, or withdraw it first. Where it is another person's own, refuse the purpose first.
    """


class ConsentEnded(Conflict, slug="consent-ended", title="Consent ended"):
    """The consent cannot be renewed in its present `state`.

    A withdrawn consent stays withdrawn: ask the person again, and record a new consent. In place of a
    replaced consent, renew the one in `replaced_by`.
    """


class PersonMustConsent(Conflict, slug="person-must-consent", title="Person must consent"):
    """A person has spoken on this twin, and only a person's own word may grant or widen anything on it now.

    Ask the person to record or renew the consent with their own token, from an account that `principals`
    lists; a renewal that only narrows is always possible. While a refusal stands, only the account that
    refused can open it, by its own consent or by `DELETE …/refusals/{refusal_id}`.
    """

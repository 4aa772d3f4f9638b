"""Problems of twins."""

from shared.http.problems import Conflict


class ExternalIdKept(Conflict, slug="external-id-kept", title="External id kept"):
    """Another twin of the owner has this external id for good: a person has spoken on that twin.

    Until a person has spoken, by their own consent or by a no, ids move freely between the owner's twins. From then
    on an id may be removed from its twin and put back there, and no other twin ever gets it, also after the twin was
    erased. `pointer` says which id of the request it is.
    """

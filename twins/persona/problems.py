"""Problems of personas."""

from shared.http.problems import Conflict


class VersionConflict(Conflict, slug="version-conflict", title="Version conflict"):
    """Another change to this persona came first, so this request changed nothing.

    Read the persona again, and apply your change to its latest version.
    """

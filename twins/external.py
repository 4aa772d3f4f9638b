"""External ids: what others call a twin, such as a voice at its vendor. They prove nothing about who owns it."""

from typing import Annotated

from pydantic import ConfigDict, Field

from shared.http.fields import Input
from shared.http.text import Text
from twins.limits import Token

ExternalName = Annotated[str, Text(255, verbatim=True)]


class ExternalId(Input):
    """What somebody else calls a twin. Compared as it was sent: `Ab` and `ab` are two ids."""

    model_config = ConfigDict(
        frozen=True, json_schema_extra={"examples": [{"type": "elevenlabs-voice", "id": "21m00T"}]}
    )

    type: Annotated[Token, Field(description="Whose id it is, and of what, such as `elevenlabs-voice`.")]
    id: Annotated[ExternalName, Field(description="The id there.")]

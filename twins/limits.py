"""What can limit a consent: for whom it is, in which form, and where. A question to the gate names the same."""

from functools import lru_cache
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from shared.http.fields import Input, Output
from shared.http.text import Phrase
from twins.parties import Issuer, Name

TOKEN = r"^[a-z][a-z0-9._\-]{0,62}$"  # noqa: S105 # nosec B105  # a form of words
"""`-` is escaped: at the end of a class it is an error under JavaScript's flag `v`, which HTML forms use."""
Token = Annotated[str, StringConstraints(pattern=TOKEN)]

type Modality = Annotated[
    Literal["text", "voice", "face", "body", "name", "style"], Field(description="What of a person a twin shows.")
]
"""What of a person a twin shows."""

_TERRITORIES = """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ
    CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO
    FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE
    JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO
    MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW
    PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM
    TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
""".split()  # noqa: SIM905 - a list of 249 would be as many lines


def _known(code: str) -> str:
    if code not in _TERRITORIES:
        raise ValueError("must be a code of two capital letters from ISO 3166-1")
    return code


type Territory = Annotated[
    str,
    AfterValidator(_known),
    Field(description="A country or territory, by ISO 3166-1.", json_schema_extra={"enum": [*_TERRITORIES]}),
]

ACCOUNT = "account"
"""The type of a recipient that is an account of this API."""


class Asker(Output):
    """Who would use a twin."""

    type: str
    id: str
    issuer: str | None = None


class Recipient(Input):
    """One whom a consent covers: an account (type `account`), or whoever else answers to this type and id."""

    type: Annotated[Token, Field(description="What it is: `account`, or a word of yours, such as `organization`.")]
    id: Annotated[Name, Field(description="Compared with that of a question without a change.")]
    issuer: Annotated[Issuer | None, Field(description="Whose id it is; of an account, its `iss`.")] = None
    name: Annotated[Phrase | None, Field(description="For people to read; it decides nothing.")] = None


def key_of(kind: str, name: str, issuer: str | None) -> str:
    """Return the text by which two recipients are compared."""
    return f"{kind}\n{issuer or ''}\n{name}"


def key_of_account(account: str) -> str:
    """Return the same of an account of this API."""
    issuer, _, subject = account.rpartition("\n")
    return key_of(ACCOUNT, subject, issuer)


@lru_cache(maxsize=1024)
def asker(key: str) -> Asker:
    """Return a recipient as answers show it."""
    kind, issuer, name = key.split("\n")
    return Asker(type=kind, id=name, issuer=issuer or None)

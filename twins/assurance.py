"""Assurance: how a yes came from the person. It is judged when the yes is given, and never changes."""

from typing import Annotated, Literal, get_args

from pydantic import Field

type Assurance = Annotated[
    Literal["recorded", "link", "token"], Field(description="How a yes came from the person, the weakest way first.")
]
"""`recorded`: the owner says so. `link`: whoever held a secret link. `token`: an account that the twin lists."""

_WORDS: tuple[Assurance, ...] = get_args(get_args(Assurance.__value__)[0])

RECORDED, TOKEN = 0, len(_WORDS) - 1
"""The ranks of the lowest and of the highest, as the database stores them."""

MEANING = (
    "How the yes came from the person. `recorded`: the word of whoever recorded it. `link`: whoever held the secret "
    "link. `token`: an account that the twin's `principals` listed, by its own token."
)


def rank_of(assurance: Assurance | None) -> int:
    """Return the rank of an assurance as the database stores it; that of none is the lowest."""
    return RECORDED if assurance is None else _WORDS.index(assurance)


def word_of(rank: int) -> Assurance:
    """Return the assurance that the database stores as this rank."""
    return _WORDS[rank]

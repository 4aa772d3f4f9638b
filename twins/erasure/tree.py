"""The tree over the ledgers of a complete erasure: what the certificate says of a twin, with the proof."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from shared.stores.postgres import Record
from twins.erasure import certificate, merkle
from twins.erasure.models import ErasedLedger


class Tree:
    """The pieces of a tree, from which the leaves of one make its entries."""

    def __init__(self, pieces: Sequence[Record]) -> None:
        self.pieces = pieces
        self._roots = merkle.levels([piece["root"] for piece in pieces])

    def number_of(self, twin_id: UUID) -> int:
        """Return the number of the piece that has a twin."""
        return next(number for number, piece in enumerate(self.pieces) if twin_id <= piece["last"])

    def entries(self, number: int, heads: Sequence[Record], places: Iterable[int]) -> list[ErasedLedger]:
        """Return entries of a piece: the ends of all its ledgers are `heads`, and `places` are within it."""
        start = sum(piece["leaves"] for piece in self.pieces[:number])
        leaves = merkle.levels([certificate.leaf(head) for head in heads])
        upper = merkle.path(self._roots, number)
        return [
            ErasedLedger(
                index=start + place,
                proof=[step.hex() for step in (*merkle.path(leaves, place), *upper)],
                **certificate.entry(heads[place]),
            )
            for place in places
        ]

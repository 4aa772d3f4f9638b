"""Merkle trees (RFC 9162 §2.1), over leaves that are hashed already."""

import hashlib
from collections.abc import Sequence

EMPTY = hashlib.sha256().digest()
"""The root of a tree without leaves."""


def leaf(entry: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def levels(hashes: Sequence[bytes]) -> list[list[bytes]]:
    """Return the levels of the tree over hashed leaves, from those to the root.

    Pairs from the left, level by level, are the tree of the RFC, which splits at the largest power of two below the
    size. So the roots of pieces of a power of two leaves, of which only the last may be smaller, are leaves of a tree
    with the same root.
    """
    found = [list(hashes) or [EMPTY]]
    while len(level := found[-1]) > 1:
        paired = [
            hashlib.sha256(b"\x01" + left + right).digest()
            for left, right in zip(level[::2], level[1::2], strict=False)
        ]
        found.append(paired + level[len(paired) * 2 :])  # the last of an odd number goes up alone
    return found


def root(hashes: Sequence[bytes]) -> bytes:
    """Return the root of the tree over hashed leaves."""
    return levels(hashes)[-1][0]


def path(tree: Sequence[Sequence[bytes]], index: int) -> list[bytes]:
    """Return the inclusion proof (§2.1.3) of a leaf in a tree of `levels`, from the leaf to the root."""
    siblings = ((level, index >> height ^ 1) for height, level in enumerate(tree[:-1]))
    return [level[sibling] for level, sibling in siblings if sibling < len(level)]

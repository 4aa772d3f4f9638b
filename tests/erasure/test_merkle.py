"""The Merkle tree against the definitions of RFC 9162 §2.1, written as they stand there."""

import hashlib
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from twins.erasure import merkle
from twins.erasure.merkle import EMPTY, leaf, levels, path, root

SIZES = st.integers(min_value=1, max_value=200)


def entries(size: int) -> list[bytes]:
    return [str(number).encode() for number in range(size)]


def hash_of(data: Sequence[bytes]) -> bytes:
    """MTH of §2.1.1."""
    if not data:
        return hashlib.sha256(b"").digest()
    if len(data) == 1:
        return hashlib.sha256(b"\0" + data[0]).digest()
    k = split(len(data))
    return hashlib.sha256(b"\1" + hash_of(data[:k]) + hash_of(data[k:])).digest()


def path_of(m: int, data: Sequence[bytes]) -> list[bytes]:
    """PATH of §2.1.3.1."""
    if len(data) == 1:
        return []
    k = split(len(data))
    if m < k:
        return [*path_of(m, data[:k]), hash_of(data[k:])]
    return [*path_of(m - k, data[k:]), hash_of(data[:k])]


def split(size: int) -> int:
    """Return the largest power of two below a size."""
    return 1 << (size - 1).bit_length() - 1


def proves(entry: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes) -> bool:
    """Verify an inclusion proof by the steps of §2.1.3.2."""
    if index >= size:
        return False
    fn, sn, r = index, size - 1, hashlib.sha256(b"\0" + entry).digest()
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = hashlib.sha256(b"\1" + p + r).digest()
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = hashlib.sha256(b"\1" + r + p).digest()
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == expected


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert root([]) == EMPTY == hash_of([])


@given(SIZES)
def test_the_root_is_that_of_the_definition(size: int) -> None:
    assert root([leaf(entry) for entry in entries(size)]) == hash_of(entries(size))


@given(SIZES, st.data())
def test_a_proof_is_that_of_the_definition_and_proves_its_leaf_alone(size: int, data: st.DataObject) -> None:
    index, other = (data.draw(st.integers(0, size - 1)) for _ in range(2))
    leaves = entries(size)
    proof = path(levels([leaf(entry) for entry in leaves]), index)

    assert proof == path_of(index, leaves)
    assert proves(leaves[index], index, size, proof, hash_of(leaves))
    assert proves(leaves[other], index, size, proof, hash_of(leaves)) == (other == index)


@given(SIZES, st.sampled_from([1, 2, 8, 64]), st.data())
def test_roots_of_pieces_are_leaves_of_the_same_tree(size: int, piece: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaves = [leaf(entry) for entry in entries(size)]
    pieces = [leaves[start : start + piece] for start in range(0, size, piece)]
    roots = [root(part) for part in pieces]

    assert root(roots) == hash_of(entries(size))
    proof = path(levels(pieces[index // piece]), index % piece) + path(levels(roots), index // piece)
    assert proof == path_of(index, entries(size))


def test_a_leaf_is_no_inner_node() -> None:
    left, right = (leaf(entry) for entry in entries(2))
    assert leaf(left + right) != merkle.root([left, right])

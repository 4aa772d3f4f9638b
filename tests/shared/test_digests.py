"""Keyed digests: the same in every release, and of no use to who has not the key."""

import hashlib
import hmac

from shared.digests import Digests

KEY = "a-digest-key-only-for-the-tests-of-32-bytes"


def test_a_digest_is_an_hmac_under_a_subkey_for_its_use() -> None:
    subkey = hmac.digest(KEY.encode(), b"logs", hashlib.sha256)

    assert Digests(KEY).digest("logs", "Zoë".encode()) == hmac.digest(subkey, "Zoë".encode(), hashlib.sha256)


def test_key_use_and_value_all_count() -> None:
    digests = [
        Digests(KEY).digest("logs", b"alice"),
        Digests(KEY + "x").digest("logs", b"alice"),
        Digests(KEY).digest("cursor", b"alice"),
        Digests(KEY).digest("logs", b"bob"),
    ]

    assert len(set(digests)) == 4


def test_a_label_is_the_first_sixteen_hexadecimal_digits() -> None:
    label = Digests(KEY).label("logs", "alice")

    assert label == Digests(KEY).digest("logs", b"alice").hex()[:16]
    assert len(label) == 16

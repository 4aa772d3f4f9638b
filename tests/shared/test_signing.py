"""Signing: keys are read strictly, the first private one signs, all are published."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import KeySet
from pydantic import SecretStr

from infra.new_secrets import signing_key
from shared.http.problems import Unavailable
from shared.settings import ConfigurationError
from shared.signing import Signer, SigningKeyError, parse_keys
from shared.tokens import StaticKeys
from twins.app import create_app
from twins.settings import Settings

KEY, OTHER = signing_key(), signing_key()
PUBLIC = {name: value for name, value in OTHER.items() if name != "d"}


class Rotating:
    """Keys that the test changes."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    async def values(self) -> tuple[str, ...]:
        return self.texts


def verified(token: str, keys: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    found = jws.deserialize_compact(token, KeySet.import_key_set(keys), algorithms=["ES256"])  # type: ignore[arg-type]
    return dict(found.headers()), json.loads(found.payload)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not JSON",
        "7",
        "null",
        "{}",
        "[7]",
        "[null]",
        json.dumps(KEY | {"crv": "P-384"}),
        json.dumps(KEY | {"kty": "RSA"}),
        json.dumps({"kty": "oct", "k": "c2VjcmV0"}),
        json.dumps({name: value for name, value in KEY.items() if name != "x"}),
        json.dumps(KEY | {"x": "AAAA"}),
        json.dumps(KEY | {"y": KEY["x"]}),  # not a point of the curve
        json.dumps(KEY | {"d": 7}),
        json.dumps([KEY, KEY | {"crv": "P-521"}]),
    ],
)
def test_what_is_no_es256_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(SigningKeyError) as refused:
        parse_keys((text,))

    assert "EC P-256" in str(refused.value)
    assert KEY["d"] not in str(refused.value)
    assert refused.value.__cause__ is None


def test_keys_come_one_or_many_a_text_and_a_repeated_one_once() -> None:
    assert parse_keys((json.dumps(KEY),)) == [KEY]
    assert parse_keys((json.dumps([KEY, OTHER]), json.dumps(KEY))) == [KEY, OTHER]
    assert parse_keys((json.dumps(OTHER), json.dumps([KEY, OTHER]))) == [OTHER, KEY]


async def test_the_first_private_key_signs_and_all_public_halves_are_published() -> None:
    signer = Signer(StaticKeys([json.dumps([PUBLIC, KEY])]))
    keys = await signer.jwks()
    header, payload = verified(await signer.sign({"text": "Zoë", "n": 1}, "test+jwt"), keys)

    assert payload == {"text": "Zoë", "n": 1}
    assert header == {"alg": "ES256", "typ": "test+jwt", "kid": keys["keys"][1]["kid"]}
    assert [key["x"] for key in keys["keys"]] == [PUBLIC["x"], KEY["x"]]
    assert KEY["d"] not in json.dumps(keys)


async def test_a_rotated_key_is_taken_up_and_the_old_one_kept() -> None:
    source = Rotating(json.dumps(KEY))
    signer = Signer(source)
    before = await signer.sign({}, "test+jwt")
    source.texts = (json.dumps(OTHER), json.dumps(KEY))
    after = await signer.sign({}, "test+jwt")
    keys = await signer.jwks()

    kids = [verified(token, keys)[0]["kid"] for token in (before, after)]
    assert kids == [keys["keys"][1]["kid"], keys["keys"][0]["kid"]]


@pytest.mark.parametrize("texts", [(), (json.dumps(PUBLIC),), ("broken",), (json.dumps(KEY), "broken")])
async def test_without_a_key_that_signs_it_is_unavailable_until_there_is_one(texts: Sequence[str]) -> None:
    source = Rotating(*texts)
    signer = Signer(source)
    with pytest.raises(Unavailable):
        await signer.sign({}, "test+jwt")
    source.texts = (json.dumps(KEY),)

    assert verified(await signer.sign({}, "test+jwt"), await signer.jwks())


@pytest.mark.parametrize("keys", ["broken", json.dumps({"kty": "RSA"}), "[]x"])
def test_the_application_refuses_to_start_with_a_key_it_could_not_use(settings: Settings, keys: str) -> None:
    with pytest.raises(ConfigurationError, match="RECEIPT_KEYS"):
        create_app(settings.model_copy(update={"receipt_keys": SecretStr(keys)}))

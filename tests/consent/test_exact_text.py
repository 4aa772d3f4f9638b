"""Notices: what the person saw is kept, shown and hashed byte for byte as it was sent."""

import hashlib
import json

import pytest
from joserfc import jws

from tests.support.app import Client, is_problem, make_twin
from tests.support.consent import NOTICE, grant, location, renew, verify

EXACT = {
    "ends of lines": "I agree.\r\nTo all of it.\rAlways.\n\n",
    "a trailing newline": "I agree.\n",
    "white space around": "  \tI agree. \xa0",
    "decomposed": "Zoe\u0308 stimmt zu.",
    "what NFC replaces": "10 \u212b, \u2126, \ufb2c",
    "a byte order mark": "\ufeffI agree.",
    "isolates around names": "\u2068Alex\u2069 may speak for \u2068\u2067\u05d0\u05dc\u05db\u05e1\u2069\u2069.",
    "an isolate over lines": "\u2066Alex\r\nagrees\u2069",
    "marks of direction": "\u200fAlex\u200e \u061c1",
    "20,000 characters that NFC doubles": "\u0958" * 20_000,
}
REFUSED = {
    "a\0b": "has U+0000 (a control character) at line 1, column 2, which is not allowed",
    "I agree.\r\n\x1b[2J": "has U+001B (a control character) at line 2, column 1, which is not allowed",
    "a\x85": "has U+0085 (a control character) at line 1, column 2, which is not allowed",
    "I do \u202enot\u202c agree.": "has U+202E (RIGHT-TO-LEFT OVERRIDE) at line 1, column 6, which is not allowed",
    "Yes\n\u202bNo\u202c": "has U+202B (RIGHT-TO-LEFT EMBEDDING) at line 2, column 1, which is not allowed",
    "\u2068Alex agrees.": "has U+2068 (FIRST STRONG ISOLATE) at line 1, column 1, an isolate that does not close",
    "Alex\u2069 agrees.": "has U+2069 (POP DIRECTIONAL ISOLATE) at line 1, column 5, which closes no isolate",
    "I agree.\u2028Not.": "has U+2028 (LINE SEPARATOR) at line 1, column 9, which is not allowed",
    "\u2068\u200b\u2069": "has characters that are not allowed here, or none that can be seen",
    "a" + "\u0301" * 31: "has more than 30 combining marks in a row, from line 1, column 2",
}


@pytest.mark.parametrize("text", EXACT.values(), ids=EXACT)
async def test_a_notice_is_kept_shown_and_hashed_as_it_was_sent(alice: Client, text: str) -> None:
    path = await make_twin(alice, consent=False)
    sent = NOTICE | {"text": text}
    digest = hashlib.sha256(text.encode()).hexdigest()
    made = await grant(alice, path, notice=sent, expires_at="2100-01-01T00:00:00Z")
    renewed = await renew(alice, made)
    receipt = jws.extract_compact((await alice.get(f"{location(made)}/receipt")).content)
    payload = json.loads(receipt.payload)

    for consent in (made, (await alice.get(location(made))).json(), renewed):
        assert consent["notice"] == sent | {"sha256": digest}
    assert payload["pii_processing"]["privacy_notice"] == sent | {"sha256": digest}
    assert (await verify(alice, path))["valid"] is True


async def test_texts_that_look_the_same_are_two_notices(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    texts = ("Zo\xeb\n", "Zoe\u0308\n", "Zo\xeb\r\n", "Zo\xeb")
    made = [await grant(alice, path, f"p{n}", notice=NOTICE | {"text": text}) for n, text in enumerate(texts)]

    assert len({consent["notice"]["sha256"] for consent in made}) == len(texts)
    listed = (await alice.get(f"{path}/consents")).json()["items"]
    assert [consent["notice"]["text"] for consent in listed[::-1]] == list(texts)


@pytest.mark.parametrize(("text", "detail"), REFUSED.items(), ids=map(ascii, REFUSED))
async def test_a_notice_that_could_show_another_text_is_refused_by_character_and_place(
    alice: Client, text: str, detail: str
) -> None:
    path = await make_twin(alice, consent=False)
    body = {"purposes": ["voice"], "notice": NOTICE | {"text": text}}
    answer = await alice.post(f"{path}/consents", json=body)

    assert is_problem(answer, 422, "validation-failed")
    assert answer.json()["errors"] == [{"pointer": "#/notice/text", "detail": detail}]
    assert (await alice.get(f"{path}/consents")).json()["items"] == []


async def test_a_lone_surrogate_is_named_with_its_place(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    body = rb'{"purposes":["voice"],' + b"\n" + rb'"notice":{"version":"1","language":"en","text":"a\ud800"}}'
    answer = await alice.post(f"{path}/consents", content=body, headers={"Content-Type": "application/json"})

    assert is_problem(answer, 400, "bad-request")
    assert answer.json()["detail"] == "The body has a lone surrogate, U+D800 (line 2, column 50)."

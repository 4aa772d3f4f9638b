"""What every API route does with a request before its own code sees it."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from devstack.functions_host import WorkerTransport
from shared.http.arguments import MAX_BODY
from shared.http.negotiation import preferred
from tests.support.app import ALEX, MISSING, Client, is_problem, make_twin
from tests.support.consent import NOTICE
from twins.app import create_app

TWINS = "/api/v1/twins"
JSON = {"Content-Type": "application/json"}
OFFERED = ("application/json", "text/plain")


@pytest.mark.parametrize(
    ("accept", "found"),
    [
        (None, "application/json"),
        ("", "application/json"),
        (" ", "application/json"),
        ("*/*", "application/json"),
        ("text/plain", "text/plain"),
        ("TEXT/Plain; charset=utf-8", "text/plain"),
        ("text/*", "text/plain"),
        ("text/html, text/*;q=0.1", "text/plain"),
        ("application/json;q=0.5, text/plain;q=0.9", "text/plain"),
        ("application/json;q=0.9, text/plain;q=0.5", "application/json"),
        ("text/plain, application/json", "application/json"),
        ("text/plain, */*;q=0.8", "text/plain"),
        ("text/plain;q=0, */*", "application/json"),
        ("application/json;q=0, */*;q=0.1", "text/plain"),
        ("application/*;q=0.9, application/json;q=0.1, text/plain;q=0.5", "text/plain"),
        ("text/plain;q=0.2, text/plain;q=0.9, application/json;q=0.5", "text/plain"),
        ("text/plain; q=0.001", "text/plain"),
        ("text/plain;q=wrong, application/json;q=0.1", "application/json"),
        (",,text/plain,,", "text/plain"),
        ("text/html", None),
        ("text/plain;q=0", None),
        ("*/*;q=0", None),
        ("application/jsonx", None),
        ("json", None),
        ("application", None),
    ],
)
def test_the_media_type_that_the_client_likes_best(accept: str | None, found: str | None) -> None:
    assert preferred(accept, OFFERED) == found


@pytest.mark.parametrize("quality", ["nan", "inf", "-1", "2", "1e5", "0x1"])
def test_a_quality_out_of_range_prefers_nothing(quality: str) -> None:
    """RFC 9110 §12.4.2: a weight is between 0 and 1 with up to three digits."""
    assert preferred(f"text/plain;q={quality}, application/json;q=0.9", OFFERED) == "application/json"


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/json, text/plain",
        "json",
        "",
        None,
    ],
)
async def test_a_body_of_another_media_type_is_refused(alice: Client, media_type: str | None) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    for method, path in (("POST", TWINS), ("PATCH", await make_twin(alice))):
        answer = await alice.request(method, path, content=b'{"tone":"x"}', headers=headers)
        assert is_problem(answer, 415, "unsupported-media-type")
        assert "application/json" in answer.json()["detail"]


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x"])
async def test_a_body_with_a_content_encoding_is_refused(alice: Client, encoding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    for method, path in (("POST", TWINS), ("PATCH", await make_twin(alice)), ("DELETE", await make_twin(alice))):
        answer = await alice.request(method, path, content=b"{}", headers=headers)
        assert is_problem(answer, 415, "unsupported-media-type")
        assert answer.headers["accept-encoding"] == "identity"
        assert "Content-Encoding" in answer.json()["detail"]
    plain = await alice.post(TWINS, json=ALEX, headers={"Content-Encoding": "Identity"})
    assert plain.status_code == 201


async def test_a_byte_order_mark_is_named(alice: Client) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await alice.post(TWINS, content=b"\xef\xbb\xbf{}", headers=headers)

    assert is_problem(answer, 400, "bad-request")
    assert answer.json()["detail"] == "The body begins with a byte order mark; leave it out."


@pytest.mark.parametrize(
    ("method", "below", "limit"),
    [
        ("POST", "/api/v1/twins", 16),
        ("PATCH", "", 16),
        ("DELETE", "", 16),
        ("POST", "/refusals", 16),
        ("POST", "/consents", 256),
        ("POST", f"/consents/{MISSING}/renew", 256),
        ("POST", f"/consents/{MISSING}/withdraw", 16),
        ("POST", "/api/v1/decisions", 64),
        ("PUT", "/persona", 1024),
        ("PATCH", "/persona", 1024),
    ],
)
async def test_a_body_has_the_limit_of_its_route(alice: Client, method: str, below: str, limit: int) -> None:
    path = below if below.startswith("/api") else await make_twin(alice) + below
    for size, status in ((limit * 1024 + 1, 413), (limit * 1024, 422)):
        body = b'{"unknown":"' + b"x" * (size - 14) + b'"}'
        answer = await alice.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, answer.text[:200]
        if status == 413:
            assert is_problem(answer, 413, "content-too-large")
            assert answer.json()["detail"] == f"The request body is larger than {limit * 1024} bytes."


async def test_the_longest_notice_fits_in_escapes(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    notice = NOTICE | {"text": "\U0001f6b2" * 20_000}
    answer = await alice.post(f"{path}/consents", json={"purposes": ["voice"], "notice": notice})
    escaped = json.dumps({"purposes": ["speech"], "notice": notice}).encode()
    again = await alice.post(f"{path}/consents", content=escaped, headers={"Content-Type": "application/json"})

    assert len(escaped) > 240_000
    assert (answer.status_code, again.status_code) == (201, 201)


async def test_an_id_has_one_spelling(alice: Client) -> None:
    path = await make_twin(alice)
    base, _, twin_id = path.rpartition("/")
    for spelled in (
        twin_id.upper(), twin_id.replace("-", ""), f"{{{twin_id}}}", f"urn:uuid:{twin_id}", f"{twin_id} ", "Ж",
        twin_id[:-1] + "Ж", twin_id.replace("-", "", 1),
    ):  # fmt: skip
        refused = [await alice.get(f"{base}/{spelled}{below}") for below in ("", "/persona", "/consents")]
        question = {"items": [{"twin_id": spelled, "purpose": "general"}]}
        refused.append(await alice.post("/api/v1/decisions", json=question))
        for answer in refused:
            assert is_problem(answer, 422, "validation-failed"), spelled
            (error,) = answer.json()["errors"]
            assert error["detail"] == "must be a UUID in lower case with hyphens, as answers spell it"
    assert (await alice.get(path)).status_code == 200


async def test_merge_patch_is_a_media_type_of_patch_alone(alice: Client) -> None:
    merge_patch = {"Content-Type": "application/merge-patch+json"}
    path = await make_twin(alice)

    assert (await alice.patch(path, content=b'{"tone":"a"}', headers=merge_patch)).json()["tone"] == "a"
    for content_type in ("application/json; charset=utf-8", "APPLICATION/JSON", " application/json ;x=y"):
        patched = await alice.patch(path, content=b'{"tone":"b"}', headers={"Content-Type": content_type})
        assert patched.status_code == 200, content_type
    for method, there in (("POST", TWINS), ("PUT", f"{path}/persona")):
        answer = await alice.request(method, there, json=ALEX, headers=merge_patch)
        assert is_problem(answer, 415, "unsupported-media-type")


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
async def test_no_body_where_one_is_needed_is_refused(
    alice: Client, transport: httpx.AsyncBaseTransport, method: str
) -> None:
    path = {"POST": TWINS, "PATCH": await make_twin(alice), "PUT": f"{await make_twin(alice)}/persona"}[method]

    async def chunks() -> AsyncIterator[bytes]:
        # The host of Azure Functions loses a body without a length.
        yield b'{"tone": "x"}' if isinstance(transport, WorkerTransport) else b""

    for content in (b"", chunks()):
        for headers in ({}, {"Content-Type": "application/json"}):
            answer = await alice.request(method, path, content=content, headers=headers)
            assert is_problem(answer, 422, "validation-failed")
            assert answer.json()["errors"][0]["pointer"] == "#"


async def test_a_body_that_may_be_left_out_and_is_lost_on_the_way_is_refused(
    alice: Client, transport: httpx.AsyncBaseTransport
) -> None:
    path = await make_twin(alice)
    (consent,) = (await alice.get(f"{path}/consents")).json()["items"]
    renew = f"{path}/consents/{consent['id']}/renew"

    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"method": "phone"}' if isinstance(transport, WorkerTransport) else b""

    refused = await alice.post(renew, content=chunks(), headers={"Content-Type": "application/json"})
    assert is_problem(refused, 422, "validation-failed")
    assert refused.json()["errors"] == [{"pointer": "#", "detail": "is required where there is a Content-Type"}]
    for content, headers in ((b"", {"Content-Type": "application/json"}), (b"", {}), (b"null", JSON)):
        renewed = await alice.post(renew, content=content, headers=headers)
        assert renewed.status_code == 201
        renew = renewed.headers["location"] + "/renew"


async def test_null_is_not_taken_for_a_body_that_was_left_out(alice: Client) -> None:
    for method, path in (("POST", TWINS), ("PATCH", await make_twin(alice))):
        refused = await alice.request(method, path, content=b"null", headers=JSON)
        assert is_problem(refused, 422, "validation-failed")
        assert refused.json()["errors"] == [{"pointer": "#", "detail": "must be an object"}]


async def test_a_body_at_the_limit_is_read_and_one_byte_more_is_not(alice: Client) -> None:
    headers = {"Content-Type": "application/json"}
    whole = b'{"unknown":"' + b"x" * (MAX_BODY - 14) + b'"}'
    assert len(whole) == MAX_BODY

    assert is_problem(await alice.post(TWINS, content=whole, headers=headers), 422, "validation-failed")
    for content in (whole + b" ", b"\xff" * 2 * MAX_BODY):
        assert is_problem(await alice.post(TWINS, content=content, headers=headers), 413, "content-too-large")


async def test_a_body_without_a_length_is_stopped_at_the_limit(alice: Client, transport: object) -> None:
    if isinstance(transport, WorkerTransport):
        return  # where it arrives empty, as told above
    given = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(1000):
            given += 1
            yield b"x" * 65_536

    answer = await alice.post(TWINS, content=chunks(), headers={"Content-Type": "application/json"})

    assert is_problem(answer, 413, "content-too-large")
    assert given <= MAX_BODY // 65_536 + 1


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999999999999999999", "\u0663"])
async def test_a_length_that_is_wrong_breaks_nothing(alice: Client, transport: object, length: str) -> None:
    if isinstance(transport, WorkerTransport):
        return  # the server in front reads the length, and refuses what is none
    answer = await alice.post(
        TWINS,
        content=b"{}",
        headers={b"Content-Type": b"application/json", b"Content-Length": length.encode()},
    )

    assert answer.status_code in {413, 422}


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("unknown=1", ["unknown"]),
        ("limit=1&limit=2", ["limit"]),
        ("limit=1&limit=1&limit=1", ["limit", "limit"]),
        ("Limit=1", ["Limit"]),
        ("limit[]=1", ["limit[]"]),
        ("a=1&b=2&limit=1", ["a", "b"]),
        ("unknown", ["unknown"]),
        ("=1", [""]),
        ("%FF=1", ["\ufffd"]),
        ("x" * 300 + "=1", ["x" * 100]),
    ],
)
async def test_a_parameter_nobody_declared_or_given_twice_is_refused(
    alice: Client, query: str, parameters: list[str]
) -> None:
    answer = await alice.get(f"{TWINS}?{query}")

    assert is_problem(answer, 422, "validation-failed")
    assert [error["parameter"] for error in answer.json()["errors"]] == parameters


async def test_parameters_are_refused_where_a_resource_has_none(alice: Client) -> None:
    path = await make_twin(alice)
    for method in ("GET", "PATCH", "DELETE"):
        answer = await alice.request(method, f"{path}?force=true", json={"tone": "x"})
        assert is_problem(answer, 422, "validation-failed")
    assert (await alice.get(path)).json()["tone"] == "professional"


async def test_a_thousand_wrong_parameters_are_not_all_told(alice: Client) -> None:
    answer = await alice.get(f"{TWINS}?{'&'.join(f'p{n}=1' for n in range(1000))}")

    assert is_problem(answer, 422, "validation-failed")
    assert len(answer.json()["errors"]) == 20


@pytest.mark.parametrize(
    "query", ["limit=5.0", "limit=%2B5", "limit=5_0", "limit=", "consent=yes", "consent=1", "consent="]
)
async def test_numbers_and_booleans_have_one_spelling(alice: Client, query: str) -> None:
    assert is_problem(await alice.get(f"{TWINS}?{query}"), 422, "validation-failed")


async def test_an_answer_may_be_kept_only_where_it_can_be_asked_for_again(alice: Client) -> None:
    path = await make_twin(alice)

    assert (await alice.get(path)).headers["cache-control"] == "private, no-cache"
    for answer in (await alice.get(TWINS), await alice.post(TWINS, json=ALEX), await alice.get(f"{TWINS}/x")):
        assert answer.headers["cache-control"] == "no-store"


def test_the_bounds_of_every_number_are_in_the_document(environment: dict[str, str]) -> None:
    numbers = {
        (path, parameter["name"]): parameter["schema"]
        for path, item in create_app().openapi()["paths"].items()
        for operation in item.values()
        for parameter in operation.get("parameters", ())
        if parameter["schema"].get("type") == "integer"
    }

    assert len(numbers) > 5
    for where, schema in numbers.items():
        assert schema["minimum"] == 1, where
        assert schema["maximum"] == (100 if where[1] == "limit" else 2**63 - 1), where

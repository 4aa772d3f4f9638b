"""`/docs` in a browser, on the real service: what a person sees who tries it from the page itself."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.browser import SIZES, Browser, Page, Size, assert_sound, chromium
from tests.conftest import ALEX, token
from tests.figures import record


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def run(page: Page, operation: str, body: Any = None, **parameters: str) -> tuple[str, Any]:
    """Run an operation from its part of the page, and return the status and the answer that the page shows."""
    block = f"[id^=operations-][id$=-{operation}]"
    answer = f"{block} .live-responses-table .response"
    if await page.evaluate(f"!document.querySelector('{block}.is-open')"):
        await page.click(f"{block} .opblock-summary-control")
        await page.click(f"{block} .try-out__btn", "Try it out")
    else:
        await page.click(f"{block} .btn-clear")
        await page.wait_for(f"!document.querySelector('{answer}')")
    for name, value in parameters.items():
        await page.fill(f"{block} tr[data-param-name={name}] input", value)
    if body is not None:
        await page.fill(f"{block} textarea.body-param__text", json.dumps(body, indent=2))
    await page.click(f"{block} .execute")
    status = await page.wait_for(f"document.querySelector('{answer} .response-col_status')?.innerText")
    text = await page.wait_for(f"document.querySelector('{answer} .response-col_description pre')?.innerText")
    return status.strip(), json.loads(text)


async def assert_whole(page: Page, operation: str) -> None:
    """All of the shown answer is within the window, and no button covers it."""
    shown = f"document.querySelector('[id^=operations-][id$=-{operation}] .live-responses-table')"
    assert await page.evaluate(f"{shown}.getBoundingClientRect().right <= innerWidth")
    assert await page.evaluate(f"[...{shown}.querySelectorAll('pre')].every((it) => it.scrollWidth <= it.clientWidth)")
    bottom, top = [
        await page.evaluate(f"{shown}.querySelector('.highlight-code {part}').getBoundingClientRect().{side}")
        for part, side in (("code", "bottom"), (".download-contents", "top"))
    ]
    assert bottom <= top


@SIZES
async def test_consent_is_given_and_withdrawn_from_the_page(browser: Browser, url: str, size: Size) -> None:
    site = f"http://twins.test:{urlsplit(url).port}"
    page = await browser.page(size)
    await page.open(f"{site}/docs")
    await page.click(".btn.authorize.unlocked")
    await page.fill("#auth-bearer-value", token(f"reader-{size.width}"))
    await page.click(".modal-ux .btn.authorize")
    await page.click(".modal-ux .btn-done")

    status, twin = await run(page, "create_twin", ALEX | {"twin_name": "Made in a browser"})
    assert (status, twin["twin_name"], twin["consent"]) == ("201", "Made in a browser", True)

    status, decision = await run(page, "decide", twin_id=twin["id"])
    assert (status, decision["decision"], decision["reason"]) == ("200", True, "granted")

    status, consents = await run(page, "list_consents", twin_id=twin["id"])
    (consent,) = consents["items"]
    assert (status, consent["id"], consent["state"]) == ("200", decision["consent_id"], "given")

    status, withdrawn = await run(page, "withdraw_consent", twin_id=twin["id"], consent_id=consent["id"])
    assert (status, withdrawn["state"]) == ("200", "withdrawn")

    status, decision = await run(page, "decide", twin_id=twin["id"])
    assert (status, decision["decision"], decision["reason"]) == ("200", False, "withdrawn")
    await assert_whole(page, "decide")
    await assert_sound(page, site)
    record("browser", {"width": size.width})

"""`/docs` in a browser, on the real service: what a person sees who tries it from the page itself."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, expect

from tests.support.app import ALEX, token
from tests.support.browser import SIZES, Size, chromium, visiting
from tests.support.figures import record


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def run(page: Page, operation: str, body: Any = None, **parameters: str) -> tuple[str, Any]:
    """Run an operation from its part of the page, and return the status and the answer that the page shows."""
    block = page.locator(f"[id^=operations-][id$=-{operation}]")
    answer = block.locator(".live-responses-table .response")
    if "is-open" in str(await block.get_attribute("class")).split():
        await block.locator(".btn-clear").click()
        await expect(answer).to_have_count(0)
    else:
        await block.locator(".opblock-summary-control").click()
        await block.locator(".try-out__btn", has_text="Try it out").click()
    for name, value in parameters.items():
        await block.locator(f"tr[data-param-name={name}] input").fill(value)
    if body is not None:
        await block.locator("textarea.body-param__text").fill(json.dumps(body, indent=2))
    await block.locator(".execute").click()
    status = await answer.locator(".response-col_status").inner_text()
    text = await answer.locator(".response-col_description pre").first.inner_text()
    return status.strip(), json.loads(text)


async def assert_whole(page: Page, operation: str) -> None:
    """All of the shown answer is within the window, and no button covers it."""
    shown = page.locator(f"[id^=operations-][id$=-{operation}] .live-responses-table")
    assert await shown.evaluate("it => it.getBoundingClientRect().right <= innerWidth")
    assert await shown.locator("pre").evaluate_all("them => them.every(it => it.scrollWidth <= it.clientWidth)")
    bottom, top = [
        await shown.locator(f".highlight-code {part}").first.evaluate(f"it => it.getBoundingClientRect().{side}")
        for part, side in (("code", "bottom"), (".download-contents", "top"))
    ]
    assert bottom <= top


@SIZES
async def test_consent_is_given_and_withdrawn_from_the_page(browser: Browser, url: str, size: Size) -> None:
    async with visiting(browser, f"http://twins.test:{urlsplit(url).port}/docs", size) as page:
        await page.locator(".btn.authorize.unlocked").click()
        await page.locator("#auth-bearer-value").fill(token(f"reader-{size.width}"))
        await page.locator(".modal-ux .btn.authorize").click()
        await page.locator(".modal-ux .btn-done").click()

        status, twin = await run(page, "create_twin", ALEX | {"twin_name": "Made in a browser"})
        assert (status, twin["twin_name"], twin["consent"]) == ("201", "Made in a browser", True)

        status, decision = await run(page, "decide", twin_id=twin["id"])
        assert (status, decision["decision"], decision["reason"]) == ("200", True, "granted")

        status, consents = await run(page, "list_consents", twin_id=twin["id"])
        (consent,) = consents["items"]
        assert (status, consent["id"], consent["state"]) == ("200", decision["consent_id"], "given")

        named = {"twin_id": twin["id"], "consent_id": consent["id"]}
        status, withdrawn = await run(page, "withdraw_consent", {"purposes": ["general"]}, **named)
        assert (status, withdrawn["state"]) == ("200", "withdrawn")

        status, decision = await run(page, "decide", twin_id=twin["id"])
        assert (status, decision["decision"], decision["reason"]) == ("200", False, "withdrawn")
        await assert_whole(page, "decide")
    record("browser", {"width": size.width})

"""Just enough Markdown to hold documents to what they say."""

import re
from pathlib import Path

from devstack.local import ROOT

DOCUMENTS = sorted(path for folder in (".", "docs", ".github") for path in (ROOT / folder).glob("*.md"))


def read(name: str | Path) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose(name: str | Path) -> str:
    """Return a document without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", read(name), flags=re.MULTILINE | re.DOTALL)


def section(name: str, title: str) -> str:
    """Return the text under a second-level heading of a document."""
    _, _, rest = read(name).partition(f"\n## {title}\n")
    assert rest, f"{name} has no section {title}"
    return rest.partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row in a text, but for heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rules = {at for at, cells in enumerate(table) if all(re.fullmatch(":?-+:?", cell) for cell in cells)}
    return [cells for at, cells in enumerate(table) if at not in rules and at + 1 not in rules]


def code(text: str, language: str) -> list[str]:
    """Return the blocks of code in a language, which is a pattern."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def words(text: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def anchors(document: Path) -> set[str]:
    """Return the fragments that lead to a heading, made as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(document: Path) -> list[str]:
    """Return the targets of a document's links, but for those that lead to other hosts."""
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)) if "://" not in target]

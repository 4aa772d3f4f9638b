"""Links and names in the documents lead to something."""

import re
from pathlib import Path

import pytest

from devstack.local import ROOT
from tests.docs.markdown import DOCUMENTS, anchors, code, links, prose, read, words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_resolves(document: Path) -> None:
    for target in links(document):
        path, _, fragment = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), target
        assert found.is_relative_to(ROOT), target
        if fragment:
            assert fragment in anchors(found), target


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/ARCHITECTURE.md"])
def test_every_file_that_is_named_exists(name: str) -> None:
    named = [word for word in words(prose(name)) if re.fullmatch(r"[a-z_.]+(/[\w.-]*)+|\w+\.py", word)]

    assert named
    for word in named:
        assert (ROOT / word).exists() or list(ROOT.glob(f"twins/*/{word}")), word


def test_every_make_target_that_is_named_exists() -> None:
    named = {target for path in DOCUMENTS for target in re.findall(r"make ([a-z]+(?:-[a-z]+)*)\b", _commands(path))}
    rules = "".join(file.read_text() for file in (ROOT / "Makefile", *ROOT.glob("*/*.mk")))

    assert {"run", "test", "demo", "token"} <= named
    for target in named:
        assert re.search(rf"^{target}:", rules, re.MULTILINE), target


def _commands(document: Path) -> str:
    """Return the code of a document, where `make` is the program and not the verb."""
    return "\n".join([*code(read(document), r"\w+"), *words(prose(document))])


def test_the_readme_leads_to_every_document() -> None:
    for document in DOCUMENTS:
        if document.name != "README.md":
            assert str(document.relative_to(ROOT)) in links(ROOT / "README.md")

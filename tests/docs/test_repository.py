"""The files that tools and visitors look for agree with the project."""

import re

import yaml

from tests.docs.markdown import read
from twins import VERSION


def test_the_newest_release_of_the_changelog_is_the_version() -> None:
    assert re.findall(r"^## \[(\d.*?)\]", read("CHANGELOG.md"), re.MULTILINE)[0] == VERSION


def test_the_hooks_are_local_and_run_all_of_make_check() -> None:
    recipe = re.search(r"^check:.*\n((?:\t.+\n)+)", read("Makefile"), re.MULTILINE)
    assert recipe
    checks = recipe[1].replace("\t@$(VENV)", ".venv/bin/python").splitlines()
    repositories = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    hooks = [hook["entry"] for repository in repositories for hook in repository["hooks"]]

    assert {repository["repo"] for repository in repositories} == {"local"}
    # pre-commit names the files, and Ruff formats them.
    assert [hook.removesuffix(" --force-exclude") for hook in hooks] == [
        re.sub(r"( --check)? \.$", "", check) for check in checks
    ]

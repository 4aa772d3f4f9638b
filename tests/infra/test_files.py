"""The Dockerfile, compose.yaml and the workflows name only what is there."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from infra.checks.__main__ import FIRST_DEPLOYMENT
from infra.checks.deployment import FOLDER, read

ROOT = FOLDER.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
WORKFLOWS = {path.name: path.read_text() for path in (ROOT / ".github/workflows").glob("*.yml")}
RUNS = [
    (name, step["run"])
    for name, text in WORKFLOWS.items()
    for job in yaml.safe_load(text)["jobs"].values()
    for step in job["steps"]
    if "run" in step
]
SCRIPTS = [*RUNS, ("infra/migrate.sh", (FOLDER / "migrate.sh").read_text())]
COPIES = [source for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]]


@pytest.mark.parametrize("source", COPIES)
def test_what_is_copied_exists_and_reaches_the_builder(source: str) -> None:
    assert (ROOT / source).exists()
    assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_app_image_holds_what_a_deployment_does() -> None:
    """What .funcignore leaves in is what the image copies: one list, in two forms."""
    left_out = set((ROOT / ".funcignore").read_text().split())
    for source in COPIES[COPIES.index("function_app.py") :]:
        assert source not in left_out


@pytest.mark.parametrize("where", ["Dockerfile", ".github/workflows/deploy.yml"])
def test_who_migrates_installs_the_extra_of_the_project(where: str) -> None:
    """Extras and all: without `asyncio` SQLAlchemy comes without greenlet, which migrations cannot do without."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(line) for line in project["optional-dependencies"]["migrate"]]
    (given,) = re.findall(
        r"pip install .*--requirement requirements.txt --constraint requirements-dev.txt (.+)",
        (ROOT / where).read_text(),
    )
    assert {_name(Requirement(name)) for name in shlex.split(given)} == {_name(one) for one in wanted}
    pins = (ROOT / "requirements-dev.txt").read_text()
    for one in wanted:
        assert re.search(rf"^{one.name}==", pins, re.MULTILINE)


def _name(requirement: Requirement) -> tuple[str, frozenset[str]]:
    return requirement.name, frozenset(requirement.extras)


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_services_name_what_is_there(service: str) -> None:
    settings = COMPOSE["services"][service]
    if "build" in settings:
        assert re.search(rf" AS {settings['build']['target']}$", DOCKERFILE, re.MULTILINE)
    for needed in settings.get("depends_on", {}):
        condition = settings["depends_on"][needed]["condition"]
        assert condition != "service_healthy" or "healthcheck" in COMPOSE["services"][needed]
    for volume in settings.get("volumes", []):
        assert volume.partition(":")[0] in COMPOSE["volumes"]
    for config in settings.get("configs", []):
        assert config["source"] in COMPOSE["configs"]
    for module in re.findall(r"python -m (\w+)", " ".join(settings.get("command", []))):
        assert importlib.util.find_spec(module)


def test_hosts_in_addresses_are_services_and_only_the_app_is_reachable() -> None:
    addresses = re.findall(r"(?:@|//)([a-z]+)(?::\d+)?(?:/|$)", (ROOT / "compose.yaml").read_text(), re.MULTILINE)
    assert set(addresses) == {"postgres", "mongo", "azurite"}
    assert [name for name, service in COMPOSE["services"].items() if "ports" in service] == ["app"]
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["services"]["app"]["ports"])
    assert COMPOSE["services"]["app"]["ports"][0].endswith(":8080")
    assert "ASPNETCORE_URLS=http://+:8080" in DOCKERFILE


def test_no_secret_is_in_the_compose_file() -> None:
    """Every one comes from .env, and `new_secrets.py compose` makes each that is named."""
    text = (ROOT / "compose.yaml").read_text()
    made = subprocess.run(
        [sys.executable, "infra/new_secrets.py", "compose"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = set(re.findall(r"^(\w+)='", made.stdout, re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+)-\}", text)) == names
    assert not re.search(r"://\w+:(?!\$)[^/@\s]+@|PASSWORD '(?!\$)", text)
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def _variables(label: str) -> set[str]:
    return set(re.findall(r"readEnvironmentVariable\('(\w+)'", (FOLDER / f"{label}.bicepparam").read_text()))


def test_the_snapshots_are_given_only_what_a_parameter_file_reads() -> None:
    assert FIRST_DEPLOYMENT.keys() <= _variables("main") | _variables("prod")


def test_new_secrets_for_azure_are_what_the_parameter_files_read() -> None:
    made = subprocess.run(
        [sys.executable, "infra/new_secrets.py", "azure"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    values = dict(re.findall(r"^export (\w+)='(.+)'$", made.stdout, re.MULTILINE))
    for path in FOLDER.glob("*.bicepparam"):
        assert values.keys() <= _variables(path.stem)
    assert json.loads(values["TWINS_RECEIPT_KEY"])["crv"] == "P-256"
    assert len(values["TWINS_JWT_SECRET"].encode()) >= 32


def _targets() -> set[str]:
    files = [ROOT / "Makefile", *ROOT.glob("*/*.mk")]
    text = "".join(file.read_text() for file in files)
    return set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))


@pytest.mark.parametrize(("where", "run"), SCRIPTS, ids=[f"{name}: {run[:40]!r}" for name, run in SCRIPTS])
def test_commands_name_what_is_there(where: str, run: str) -> None:
    for target in re.findall(r"\bmake ([a-z-]+)", run):
        assert target in _targets()
    for module in re.findall(r"python -m (\w+)", run):
        assert importlib.util.find_spec(module)
    for path in re.findall(r"\b((?:infra|devstack|requirements)[\w/-]*\.\w+)", run):
        assert (ROOT / path).is_file()


@pytest.mark.parametrize("job", ["what-if", "infrastructure"])
def test_a_deployment_is_given_every_parameter_that_it_reads(job: str) -> None:
    """One that is not given would go back to its default with the next push; secrets are given by hand, once."""
    given = yaml.safe_load(WORKFLOWS["deploy.yml"])["jobs"][job]["env"]
    asked = _variables("prod")
    secret = {"TWINS_JWT_SECRET", "TWINS_DIGEST_KEY", "TWINS_RECEIPT_KEY"}
    assert {name for name in given if name.startswith("TWINS_")} == asked - secret


def test_the_workflow_and_the_guides_name_one_compiler() -> None:
    guides = "".join((ROOT / "docs" / name).read_text() for name in ("DEPLOY.md", "OPERATIONS.md"))
    named = re.findall(r"bicep install --version v([\d.]+\d)", WORKFLOWS["check.yml"] + guides)
    assert [*named, *re.findall(r"compiler of these snapshots is ([\d.]+\d)", guides)] == [named[0]] * 3


def test_what_changes_is_shown_before_it_is_deployed() -> None:
    steps = [step.get("run", "") for step in yaml.safe_load(WORKFLOWS["deploy.yml"])["jobs"]["infrastructure"]["steps"]]
    deployed = re.compile(r"az deployment group (what-if|create) (.+?infra/prod\.bicepparam)")
    (shown, of_what), (made, what) = (match.groups() for step in steps if (match := deployed.search(step)))
    assert (shown, made) == ("what-if", "create")
    assert of_what == what


def test_an_audience_that_is_not_set_is_still_checked() -> None:
    """Given an empty variable, Bicep takes the empty string and not its default; empty accepts any audience."""
    (default,) = re.findall(r"'TWINS_JWT_AUDIENCE', '(.+)'", (FOLDER / "prod.bicepparam").read_text())
    given = re.findall(r"TWINS_JWT_AUDIENCE: (\S.+}})", WORKFLOWS["deploy.yml"])
    assert given == [f"${{{{ vars.TWINS_JWT_AUDIENCE || '{default}' }}}}"] * 2


def test_outputs_that_the_deployment_reads_exist() -> None:
    names = set(re.findall(r"^output (\w+) ", (FOLDER / "main.bicep").read_text(), re.MULTILINE))
    step = next(run for _, run in RUNS if "jq" in run)
    assert set(re.findall(r": \.(\w+)", step)) <= names


def test_variables_that_the_migration_needs_are_given_to_it() -> None:
    needed = set(re.findall(r"\$\{(\w+):\?\}", (FOLDER / "migrate.sh").read_text()))
    workflow = yaml.safe_load(WORKFLOWS["deploy.yml"])
    step = next(step for step in workflow["jobs"]["schema"]["steps"] if "migrate.sh" in step.get("run", ""))
    assert needed == step["env"].keys()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_hold_no_secret_and_pin_every_action(name: str) -> None:
    assert "secrets." not in WORKFLOWS[name]
    for action in re.findall(r"uses: (\S+)", WORKFLOWS[name]):
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)


def test_every_alert_is_explained_and_what_is_explained_exists() -> None:
    alerts = read(FOLDER / "main.snapshot.json").of(
        "Microsoft.Insights/scheduledQueryRules",
        "Microsoft.Insights/metricAlerts",
        "Microsoft.EventGrid/systemTopics/eventSubscriptions",
    )
    names = {re.sub("^twins-[a-z0-9]{13}-|(?<=availability)-.+", "", alert.name) for alert in alerts}
    section = (ROOT / "docs/OPERATIONS.md").read_text().partition("## Alerts")[2].partition("\n## ")[0]
    assert names == set(re.findall("^### (.+)$", section, re.MULTILINE))


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("guide", ["OPERATIONS.md", "DEPLOY.md"])
def test_every_link_of_the_guides_leads_somewhere(guide: str) -> None:
    text = (ROOT / "docs" / guide).read_text()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / "docs" / file).read_text() if file else text
        assert not anchor or anchor in _anchors(target)

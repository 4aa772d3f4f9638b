"""The queries of the alerts, of the workbook and of OPERATIONS ask for what is exported.

Nothing at hand runs KQL. So a query's tables, columns, metrics, messages and attributes are looked up:
the first two in the schema of Application Insights, the others among the rows that the app exports.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack.local import ROOT
from infra.checks.deployment import FOLDER, read

DEPLOYED = read(FOLDER / "prod.snapshot.json")
EVERYWHERE = {
    "timestamp", "itemType", "itemCount", "customDimensions", "operation_Id", "cloud_RoleInstance",
}  # fmt: skip
TABLES = {
    "requests": {"id", "name", "url", "success", "resultCode", "duration"},
    "dependencies": {"id", "name", "target", "type", "success", "resultCode", "duration"},
    "traces": {"message", "severityLevel"},
    "exceptions": {"type", "outerMessage"},
    "customMetrics": {"name", "value", "valueSum", "valueMax", "valueCount"},
}
"""The columns of each table that is asked for: https://learn.microsoft.com/azure/azure-monitor/reference/tables."""
UNCHECKED = {"AZKVAuditLogs"}
"""Tables that only Azure writes. OPERATIONS says so."""
LANGUAGE = {
    "where", "summarize", "by", "project", "extend", "order", "asc", "desc", "union", "distinct", "render", "and", "or",
    "in", "has", "endswith", "startswith", "between", "isnotempty", "ago", "now", "bin", "sum", "sumif", "count",
    "countif", "max", "min", "percentile", "dcount", "arg_min", "toint", "tostring", "timechart", "columnchart",
    "true", "false", "d", "h", "m", "range", "grain",
}  # fmt: skip
_TEXT = re.compile(r'"([^"]*)"')


def _queries() -> Iterator[tuple[str, str]]:
    for rule in DEPLOYED.of("Microsoft.Insights/scheduledQueryRules"):
        for criterion in rule.get("properties.criteria.allOf"):
            yield rule.name, criterion["query"]
    for workbook in DEPLOYED.of("Microsoft.Insights/workbooks"):
        for item in json.loads(workbook.get("properties.serializedData"))["items"]:
            if "query" in item["content"]:
                yield item["name"], item["content"]["query"]
    operations = Path(ROOT / "docs" / "OPERATIONS.md").read_text()
    for question, query in re.findall(r"\n([^\n]+)\n```kusto\n(.*?)```", operations, re.DOTALL):
        yield question, re.sub(r"//.*", "", query)


QUERIES = dict(_queries())


@pytest.fixture(scope="module")
def attributes(exported: dict[str, Any]) -> dict[str, set[str]]:
    """The attributes of the rows of each table."""
    found: dict[str, set[str]] = {table: set() for table in TABLES}
    for span in exported["spans"]:
        found["requests" if span["kind"].endswith("SERVER") else "dependencies"].update(span["attributes"])
    for log in exported["logs"]:
        found["traces"].update(log["attributes"])
    for metric in _metrics(exported):
        for point in metric["data"]["data_points"]:
            found["customMetrics"].update(point["attributes"])
    return found


def _metrics(exported: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in exported["metrics"]["resource_metrics"]:
        for scope in resource["scope_metrics"]:
            yield from scope["metrics"]


def _tables(query: str) -> set[str]:
    return {name for name in (*TABLES, *UNCHECKED) if re.search(rf"\b{name}\b", _TEXT.sub("", query))}


def _asked(query: str, column: str) -> set[str]:
    """Return the texts that a column is compared with as a whole."""
    found = re.findall(rf'\b{column} (?:==|in) ((?:\("[^)]*\))|"[^"]*")', query)
    return {text for part in found for text in _TEXT.findall(part)}


def test_there_are_queries_of_all_three() -> None:
    assert {"Decisions by reason", "What does the gate say, and why?"} < QUERIES.keys()
    assert any(name.endswith("outbox-age") for name in QUERIES)
    assert len(QUERIES) > 30


@pytest.mark.parametrize("name", QUERIES)
def test_tables_and_columns_exist(name: str) -> None:
    query = QUERIES[name]
    tables = _tables(query)
    assert tables
    if tables & UNCHECKED:
        assert f"`{', '.join(tables)}`" in (ROOT / "docs" / "OPERATIONS.md").read_text()
        return
    bare = re.sub(r"customDimensions\.\w+", "customDimensions", _TEXT.sub("", query))
    made = set(re.findall(r"\b(\w+) = ", bare))
    known = LANGUAGE | EVERYWHERE | TABLES.keys() | made | {column for table in tables for column in TABLES[table]}

    assert set(re.findall(r"\b[A-Za-z_]\w*", bare)) <= known


@pytest.mark.parametrize("name", QUERIES)
def test_attributes_metrics_and_messages_are_exported(
    name: str, exported: dict[str, Any], attributes: dict[str, set[str]]
) -> None:
    query = QUERIES[name]
    tables = _tables(query) - UNCHECKED
    known = {attribute for table in tables for attribute in attributes[table]}

    assert {a or b for a, b in re.findall(r'customDimensions(?:\.(\w+)|\["([^"]+)"\])', query)} <= known
    if "customMetrics" in tables:
        assert _asked(query, "name") <= {metric["name"] for metric in _metrics(exported)}
    code = "".join(path.read_text() for room in ("twins", "shared") for path in (ROOT / room).rglob("*.py"))
    assert {message for message in _asked(query, "message") if f'"{message}' not in code} == set()


@pytest.mark.parametrize("path", ["/decision", "/decisions"])
def test_the_gate_is_found_by_the_end_of_its_names(path: str, exported: dict[str, Any]) -> None:
    names = {span["name"] for span in exported["spans"] if span["kind"].endswith("SERVER")}

    assert any(name.endswith(path) for name in names)
    assert f'name endswith "{path}"' in QUERIES["The gate: median and 99th percentile, in milliseconds"]

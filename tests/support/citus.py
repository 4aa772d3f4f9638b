"""infra/citus.sql as data: what it makes of each table."""

import re

from devstack.local import ROOT

SCRIPT = ROOT / "infra" / "citus.sql"

_KINDS = {
    "distributed": "create_distributed_table",
    "reference": "create_reference_table",
    "local": "citus_add_local_table_to_metadata",
}


def kinds() -> dict[str, set[str]]:
    """Return the tables that are distributed, reference and local."""
    statements = re.sub(r"--[^\n]*", "", SCRIPT.read_text()).split(";")
    return {
        kind: {
            name
            for statement in statements
            if function in statement
            for name in re.findall(r"'([a-z_]+)'", re.sub(r"colocate_with => '\w+'|, '(?:twin_id|id)'", "", statement))
        }
        for kind, function in _KINDS.items()
    }

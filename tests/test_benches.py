"""Runs each measurement of `cargo xtask bench` once: it must work, however long it takes.

`cargo test --package semlock-bench` runs the Rust ones once; so does a bench, before it measures.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from children import output

BENCHES = Path(__file__).resolve().parent.parent / "benches"
FIELDS = {
    *("table", "rivals", "work", "unit", "better", "ours", "theirs", "ratio", "bound", "group"),
    "pass",
}


def measured(table: str, *arguments: str | Path) -> str:
    return output(BENCHES, "--rounds", "1", "--only", table, *arguments)


@pytest.mark.parametrize(
    "table",
    [
        "uncontended",
        "kernel",
        "hand_over",
        "contention",
        "fairness",
        "recovery",
        "alive",
        "queues",
        "peers",
    ],
)
def test_each_table_can_be_measured(table: str) -> None:
    if table == "peers":
        pytest.importorskip("sysv_ipc", reason="cargo xtask bench installs the peers")
    printed = [line.split("|")[1:-1] for line in measured(table).splitlines() if line[:1] == "|"]
    head, _rule, *rows = ([cell.strip() for cell in line] for line in printed)
    ours = head.index("semlock")
    assert len(rows) >= 4
    for row in rows:
        float(row[ours].replace(",", ""))


def test_a_run_is_kept_as_json_and_as_a_chart(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="cargo xtask bench installs what draws charts")
    measured("kernel", "--results", tmp_path)
    kept = json.loads((tmp_path / "latest.json").read_text())
    assert {"date", "machine", "load", "rounds", "versions"} < kept.keys()
    assert kept["rows"]
    assert all(row.keys() == FIELDS for row in kept["rows"])
    chart = (tmp_path / "chart.svg").read_text()
    assert "acquire(timeout=1); release()</text>" in chart

"""Shows the tables of a run, and writes them to a file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from rounds import Row, Table


def number(value: float | None) -> str:
    """The number with three significant digits, and with all digits before the point."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"


def verdict(row: Row) -> str:
    if row.bound is None:
        return ""
    times = "" if row.ratio is None else " ×"
    return f"≤ {number(row.bound)}{times}: {'pass' if row.passed else '**miss**'}"


def markdown(table: Table) -> str:
    lines = [f"### {table.title}", ""]
    if table.rivals:
        lines.append(f"| work | unit | better | {table.rivals} | semlock | ratio | bound |")
        lines.append("|---|---|---|---:|---:|---:|---|")
    else:
        lines.append("| work | unit | better | semlock | bound |")
        lines.append("|---|---|---|---:|---|")
    for row in table.rows:
        cells = [row.work, row.unit, row.better]
        if table.rivals:
            cells += [number(row.theirs), number(row.ours), number(row.ratio)]
        else:
            cells.append(number(row.ours))
        lines.append(f"| {' | '.join([*cells, verdict(row)])} |")
    if table.left_out:
        lines += ["", f"Left out, because it is not installed: {', '.join(table.left_out)}."]
    return "\n".join(lines)


def summary(tables: list[Table]) -> str:
    bounded = [row for table in tables for row in table.rows if row.passed is not None]
    missed = [row.work for row in bounded if not row.passed]
    if not bounded:
        return "Nothing here has a bound."
    if missed:
        return f"{len(missed)} of {len(bounded)} bounds are missed: {'; '.join(missed)}."
    return f"All {len(bounded)} bounds are met."


def record(tables: list[Table], **about: Any) -> dict[str, Any]:
    """The whole run, as the file has it. A ratio is semlock's figure divided by the rival's."""
    rows = [
        {"table": table.title, "rivals": table.rivals or None}
        | dataclasses.asdict(row)
        | {"pass": row.passed}
        for table in tables
        for row in table.rows
    ]
    return {**about, "rows": rows}


def save(run: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(run, indent=2, ensure_ascii=False) + "\n")

"""Draws a run as a chart.

Each table has a panel. Each row or group with a bound has a bar, and a line for the bound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from report import number

PASS, MISS, BOUND, RIVAL = "#1a7f64", "#c2410c", "#111827", "#6b7280"
INCHES_A_ROW = 0.23
# The longest bar, in % of its bound. Longer ones are cut here.
LONGEST_SHARE = 300

# The same run always gives the same file. Labels stay text, so that readers can search and scale
# them, and screen readers can read them.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "semlock",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 10,
    "grid.color": "#e5e7eb",
}


def plain(text: str) -> str:
    return text.replace("`", "")


def bars(
    axes: Axes, rows: list[dict[str, Any]], lengths: list[float], bounds: list[float], unit: str
) -> None:
    """Draws bars from the left, their bounds as vertical lines, and their texts at the right."""
    places = range(len(rows))
    axes.barh(places, lengths, color=[PASS if row["pass"] else MISS for row in rows], height=0.6)
    axes.vlines(bounds, [p - 0.42 for p in places], [p + 0.42 for p in places], BOUND, lw=2)
    axes.set_yticks(places, [plain(row["work"]) for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} {unit}"))
    for place, row in zip(places, rows, strict=True):
        figure = f"{number(row['ours'])} {row['unit']}".strip()
        if row["ratio"] is None:
            said = f"{figure} (≤ {number(row['bound'])})"
        else:
            said = f"{number(row['ratio'])} × (≤ {number(row['bound'])}): {figure}"
        if not row["pass"]:
            said += " missed"
        axes.annotate(
            said,
            (1, place),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=BOUND if row["pass"] else MISS,
        )


def draw_ratios(axes: Axes, rows: list[dict[str, Any]], least: float, most: float) -> None:
    axes.set_xscale("log")
    ratios = [row["ratio"] for row in rows]
    bars(axes, rows, ratios, [row["bound"] for row in rows], "×")
    # A logarithmic scale has no zero. So the bars of all panels begin at the same least value.
    axes.set_xlim(least, most)
    axes.axvline(1, color=RIVAL, lw=1, ls="--")
    axes.set_title(plain(f"{rows[0]['table']}: time as a multiple of {rows[0]['rivals']}'s"))


def draw_amounts(axes: Axes, rows: list[dict[str, Any]]) -> None:
    shares = [100 * share_of_bound(row) for row in rows]
    lengths = [min(share, LONGEST_SHARE) for share in shares]
    bars(axes, rows, lengths, [100] * len(rows), "%")
    axes.set_xlim(0, max(120, *lengths))
    axes.set_title(plain(f"{rows[0]['table']}: share of the bound"))


def share_of_bound(row: dict[str, Any]) -> float:
    judged = row["ours"] if row["ratio"] is None else row["ratio"]
    if row["bound"]:
        return judged / row["bound"]
    # The bound is 0.
    return float("inf") if judged else 0.0


def panels_of(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows with a bound: a list for each panel.

    Ratios and amounts of one table have separate panels. Of each group, only the worst row is
    there, at the place of the group's first row.
    """
    panels: dict[tuple[str, bool], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["bound"] is None:
            continue
        panel = panels.setdefault((row["table"], row["ratio"] is None), {})
        group = row["group"] or row["work"]
        if group not in panel or share_of_bound(row) > share_of_bound(panel[group]):
            panel[group] = row
    return [list(panel.values()) for panel in panels.values()]


def draw(run: dict[str, Any], file: Path) -> None:
    panels = panels_of(run["rows"])
    if not panels:
        return
    ratios = [row["ratio"] for panel in panels for row in panel if row["ratio"] is not None]
    least, most = min([0.01, *ratios]) / 2, max([1.5, *ratios]) * 1.3
    with mpl.rc_context(STYLE):
        heights = [len(rows) for rows in panels]
        # The background is white, so that the chart is legible on a dark page too.
        size = 9.5, INCHES_A_ROW * (sum(heights) + 3 * len(panels) + 3)
        figure = Figure(size, facecolor="white", layout="constrained")
        figure.suptitle(
            "semlock, measured: lower is better everywhere\n"
            "upright line: the bound · dashed: as much time as the rival takes",
            fontsize=10,
        )
        every_axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for axes, rows in zip(every_axes, panels, strict=True):
            if rows[0]["ratio"] is None:
                draw_amounts(axes, rows)
            else:
                draw_ratios(axes, rows, least, most)
        figure.savefig(file, format="svg", metadata={"Date": None, "Title": "semlock, measured"})

"""Measures semlock beside its rivals, in one run: `cargo xtask bench`.

It prints each table as soon as it is measured, and writes all of them to a JSON file and a chart. A
row with a bound passes or misses it. A miss does not make the run fail, because the machine may be
the cause.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import signal
from pathlib import Path

from machine import load, machine, versions
from report import markdown, record, save, summary

# Each table has a module of this name. They are measured in this order.
TABLES = (
    "uncontended",
    "kernel",
    "hand_over",
    "contention",
    "fairness",
    "recovery",
    "alive",
    "queues",
    "peers",
    "rust",
)
ROUNDS = 31
# The results of fewer rounds are not written to `benches/results`: they say too little.
ENOUGH = 9


def hung(*_: object) -> None:
    raise TimeoutError("a measurement hangs")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benches", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rounds",
        type=int,
        default=ROUNDS,
        help=f"rounds in which the two sides take turns (default {ROUNDS}); 1 only shows that "
        "everything can be measured",
    )
    parser.add_argument(
        "--only", nargs="+", choices=TABLES, default=TABLES, metavar="TABLE", help=str(TABLES)
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="the folder for latest.json and chart.svg (default: benches/results, if every table "
        "is measured in enough rounds to say something)",
    )
    chosen = parser.parse_args()
    if chosen.rounds < 1:
        parser.error("at least one round is needed")

    about = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": machine(),
        "load": load(),
        "rounds": chosen.rounds,
        "versions": versions(
            "semlock",
            "fasteners",
            "faster-fifo",
            "filelock",
            "matplotlib",
            "numpy",
            "posix_ipc",
            "sysv_ipc",
        ),
    }
    print(f"{about['machine']}; {about['load']}; {chosen.rounds} rounds", flush=True)
    # `rounds` sets the alarm: a measurement that hangs ends with this exception.
    signal.signal(signal.SIGALRM, hung)
    tables = []
    for name in chosen.only:
        # A table's module imports the rivals. They need not be installed if it is not measured.
        tables.append(importlib.import_module(name).table(chosen.rounds))
        print(f"\n{markdown(tables[-1])}", flush=True)
    print(f"\n{summary(tables)}")

    results = chosen.results
    if results is None and chosen.only == TABLES and chosen.rounds >= ENOUGH:
        results = Path(__file__).resolve().parent / "results"
    if results is not None:
        results.mkdir(parents=True, exist_ok=True)
        run = record(tables, **about)
        save(run, results / "latest.json")
        importlib.import_module("chart").draw(run, results / "chart.svg")
        print(f"Kept in {results}")


if __name__ == "__main__":
    main()

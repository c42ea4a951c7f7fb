"""What the commands do and print: progress while it runs, then tables, the verdict, and where the report lies."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

REPORT_FILE = "report.html"


@dataclass
class Bars:
    """Draws the run: one bar for the budget, one for the phase, and a line for each finished fact."""

    console: Console
    budget: float
    _progress: Progress = field(init=False)
    _whole: TaskID = field(init=False)
    _phase: TaskID | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self.console, transient=True)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False)

    def phase(self, name: str, total: int | None) -> None:
        if self._phase is not None:
            self._progress.remove_task(self._phase)
        if not self.console.is_terminal:
            self.say(f"... {name}")
        self._phase = self._progress.add_task(name, total=total)

    def advance(self, label: str, k: int) -> None:
        if self._phase is not None:
            self._progress.update(self._phase, description=label, advance=k)


def transfer_and_report(
    photos: Path,
    out: Path,
    *,
    budget: str,
    seed: int,
    names: Sequence[str] | None,
    group_by: str | None,
    margin: float,
    skip_unreadable: bool,
    command: str,
) -> None:
    """Run the main job, print what it found, and write the report."""
    console = Console()
    from headstart.runs import parse_budget

    seconds = parse_budget(budget)
    import headstart as hs

    task = hs.Task.from_folder(photos, group_by=group_by)
    pool = [hs.sources.get(name) for name in names] if names else hs.sources.available(task)
    with Bars(console, seconds) as bars:
        result = hs.transfer(
            task, pool, budget=seconds, seed=seed, out=out, skip_unreadable=skip_unreadable, margin=margin, observer=bars, command=command
        )
    print_result(console, result)
    console.print(f"Report: {write_report(out, result=result)}", highlight=False, soft_wrap=True)


def print_result(console: Console, result: Any) -> None:
    """Print the ranked sources, the arms and the verdict."""
    ranked = Table(title="Sources, ranked by a probe on frozen features", title_justify="left")
    for column in ("source", result.metric, "90 % interval", "parameters"):
        ranked.add_column(column)
    for source in result.sources:
        ranked.add_row(source.name, f"{source.probe.value:.3f}", _interval(source.probe), f"{source.parameters / 1e6:.1f} M")
    arms = Table(title="What was reached", title_justify="left")
    for column in ("arm", "method", "source", "cross-validated", "90 % interval", "held-out test", "90 % interval"):
        arms.add_column(column)
    for arm in result.arms:
        arms.add_row(
            arm.name, arm.method, arm.source or "-", f"{arm.cv.value:.3f}", _interval(arm.cv), f"{arm.test.value:.3f}", f"{_interval(arm.test)} (n={arm.test.n})"
        )
    console.print(ranked, arms)
    console.print(f"Verdict: {result.verdict}", style="bold", highlight=False)
    console.print(f"Shipped: {result.shipped}.", highlight=False)
    if result.stopped_by == "budget":
        console.print("The budget ended before the plan did; more time may find more.", highlight=False)
    for note in result.notes:
        console.print(note, highlight=False)


def predict_to_csv(run: Path, images: Sequence[Path], out: Path) -> None:
    """Predict images and write a CSV file, whole or not at all."""
    from headstart.core import InputError
    from headstart.export import load
    from headstart.modality.image import list_images

    result = load(run)
    paths = list_images(list(images))
    predictions = result.predict(paths)
    scratch = out.with_name(f".{out.name}.new")
    try:
        with scratch.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["path", "label", "probability", *(f"p({label})" for label in result.labels)])
            for p in predictions:
                table.writerow([p.path, p.label, f"{p.probability:.6f}", *(f"{v:.6f}" for v in p.probabilities)])
        os.replace(scratch, out)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}). Choose another --out, or free space and rights there.") from None
    print(f"{len(predictions)} predictions: {out}")


def write_report(run: Path, *, result: Any = None) -> Path:
    """Write the report into the run's folder and return its path."""
    from headstart.core import InputError
    from headstart.export import load
    from headstart.report import write

    result = result if result is not None else load(run)
    try:
        return write(result, run / REPORT_FILE)
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise InputError(f"{run / REPORT_FILE} cannot be written: {what}. Free space or rights there, then: headstart report {run}") from None


def print_sources(*, as_json: bool) -> None:
    """List the catalogue."""
    from headstart.sources import catalogue

    rows = [entry for entry in catalogue()]
    if as_json:
        print(json.dumps([_row(entry) for entry in rows], indent=1))
        return
    table = Table()
    for column in ("name", "family", "parameters", "dim", "stages", "trained on", "licence", "on this machine"):
        table.add_column(column)
    for entry in rows:
        row = _row(entry)
        table.add_row(*(str(row[k]) for k in ("name", "family", "parameters", "dim")), str(len(row["stages"])), row["trained_on"], row["licence"], row["origin"])
    Console().print(table)


def _row(entry: Any) -> dict[str, Any]:
    keys = ("name", "family", "parameters", "dim", "stages", "trained_on", "licence", "origin")
    return {key: getattr(entry, key) for key in keys} | {"installed": entry.opener is not None}


def _interval(score: Any) -> str:
    return "-" if score.interval is None else f"{score.interval[0]:.3f} to {score.interval[1]:.3f}"

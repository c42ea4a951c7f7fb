"""What the commands do and print: progress while it runs, then tables, the verdict, and where the report lies."""

from __future__ import annotations

import csv
import errno
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from headstart.fronts import bytes_told, chosen, seconds_told
from headstart.records import plain
from headstart.result import PredictedValue, Prediction, Result, Score, counted

if TYPE_CHECKING:
    import headstart as hs
    from headstart.core import Source

REPORT_FILE = "report.html"
NARROW: dict[str, Any] = {"show_edge": False, "padding": (0, 1, 0, 0)}  # why: three columns of scores with intervals fit into 80 characters
ARMS = {"baseline": "no transfer", "frozen": "frozen + head", "fine-tuned": "fine-tuned"}


class Left(ProgressColumn):
    """The time left: for the run, until its budget ends; for a step of known length, as its pace so far tells."""

    def render(self, task: Task) -> Text:
        if "budget" in task.fields:
            return Text(f"at most {_clock(max(0.0, task.fields['budget'] - (task.elapsed or 0.0)))} left", style="progress.remaining")
        return Text("" if task.time_remaining is None else f"about {_clock(task.time_remaining)} left", style="progress.remaining")


@dataclass
class Bars:
    """Draws the run: a line for the whole budget, one for the step, and a line for each finished fact."""

    console: Console
    budget: float
    _progress: Progress = field(init=False)
    _whole: TaskID = field(init=False)
    _step: TaskID | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn(), Left())
        self._progress = Progress(*columns, console=self.console, transient=True)
        self._whole = self._progress.add_task("the run", total=self.budget, budget=self.budget)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)
        self._tick()

    def phase(self, name: str, total: int | None) -> None:
        if self._step is not None:
            self._progress.remove_task(self._step)
        if not self.console.is_terminal:
            self.say(f"... {name}")
        self._step = self._progress.add_task(name, total=total)
        self._tick()

    def advance(self, label: str, k: int) -> None:
        if self._step is not None:
            self._progress.update(self._step, advance=k)
        self._tick()

    def _tick(self) -> None:
        elapsed = next(task.elapsed for task in self._progress.tasks if task.id == self._whole)
        self._progress.update(self._whole, completed=min(self.budget, elapsed or 0.0))


@dataclass(frozen=True)
class Asked:
    """What the user asked of ``headstart transfer``."""

    data: Path
    out: Path
    budget: str
    seed: int
    names: Sequence[str] | None = None
    text: str | None = None
    target: str | None = None
    source_data: Path | None = None
    kind: str | None = None
    group_by: str | None = None
    engine: str = "auto"
    methods: str | None = None
    train: str | None = None
    margin: float = 0.0
    skip_unreadable: bool = False
    terms: Mapping[str, Any] = field(default_factory=dict)
    bounds: Mapping[str, str | None] | None = None
    runner: tuple[str, str] = ("here", "auto")
    command: str = ""


def transfer_and_report(asked: Asked) -> None:
    """Run the main job, print what it found, and write the report."""
    console = Console()
    from headstart.runs import parse_budget

    seconds = parse_budget(asked.budget)
    import headstart as hs
    from headstart.crew import size
    from headstart.keeping import Settings
    from headstart.methods import tuners

    settings, terms = Settings.parse(asked.train or ""), hs.Terms(**asked.terms)
    settings = settings if settings.processes > 1 else replace(settings, processes=size())
    bounds = None if asked.bounds is None else hs.Bounds(**asked.bounds)
    methods = None if asked.methods is None else [name.strip() for name in asked.methods.split(",") if name.strip()]
    if methods is not None:
        tuners(methods)  # why here: a misspelt name is told before any file is read
    task = task_of(asked)
    pool = pool_of(asked, task)
    with Bars(console, seconds) as bars:
        result = hs.transfer(
            task,
            pool,
            budget=seconds,
            seed=asked.seed,
            out=asked.out,
            skip_unreadable=asked.skip_unreadable,
            margin=asked.margin,
            engine=asked.engine,
            methods=methods,
            settings=settings,
            search=terms,
            bounds=bounds,
            runner=asked.runner[0],
            address=asked.runner[1],
            observer=bars,
            command=asked.command,
        )
    print_result(console, result)
    console.print(f"Report: {write_report(asked.out)}", highlight=False, soft_wrap=True)


def learn_together_and_print(asked: Asked, targets: Sequence[str], *, balance: str, sampling: str) -> None:
    """Learn several columns together, and print what each has of the others."""
    from headstart.core import InputError
    from headstart.methods.model.multitask import BALANCES, MultiTask
    from headstart.modality.table import tasks_from_table
    from headstart.runs import parse_budget
    from headstart.several import multitask

    if balance not in BALANCES:
        raise InputError(f"balance={balance!r} is unknown. Choose one of {', '.join(BALANCES)}.")
    tasks = tasks_from_table(asked.data, targets=targets, text=asked.text, group_by=asked.group_by)
    pool = pool_of(asked, next(iter(tasks.values())))
    if not pool:
        raise InputError("There is no source for text to transfer from. Install a sentence encoder: pip install 'headstart[text]'.")
    console = Console()
    with Bars(console, parse_budget(asked.budget)) as bars:
        how = {"method": MultiTask(balance=balance), "sampling": sampling, "margin": asked.margin, "out": asked.out, "observer": bars}
        found = multitask(tasks, pool[0], budget=asked.budget, seed=asked.seed, **how)  # type: ignore[arg-type]
    folds = f"{found.folds} fold{'s' * (found.folds != 1)}"
    console.print(f"{found.rows} rows, {found.shared} with several labels; {found.source}; {folds}.", highlight=False, soft_wrap=True)
    for task in found.tasks:
        console.print(str(task), highlight=False, soft_wrap=True)


def diagnose_and_print(asked: Asked, *, other: Path | None, as_json: bool) -> None:
    """Look the data over and print the findings, as sentences or as JSON."""
    import headstart as hs
    from headstart.modality.table import read_items

    task = task_of(asked)
    unseen = None
    if other is not None:
        if existing(other).is_dir() != asked.data.is_dir():
            raise hs.InputError(f"{other} and {asked.data} are not of one kind. Give --predict a folder of images beside a folder, or a table beside a table.")
        if other.is_dir():
            unseen = hs.Task.unlabelled_from_folder(other)
        else:
            items = read_items(other, text=asked.text, leave_out=[asked.target or ""])
            unseen = hs.Task(task.kind, task.modality, hs.Domain(other.name, items))
    found = hs.diagnose(task, unseen, seed=asked.seed)
    print(json.dumps(plain(found), indent=1, ensure_ascii=False) if as_json else found)


def task_of(asked: Asked) -> hs.Task:
    """Return the labelled task that was asked for."""
    import headstart as hs
    from headstart.core import InputError

    existing(asked.data)
    if asked.data.is_dir():
        if asked.text or asked.target:
            raise InputError(f"{asked.data} is a folder; --text and --target are for tables. Give a CSV, JSON lines or Parquet file.")
        return hs.Task.from_folder(asked.data, group_by=asked.group_by)
    if asked.target is None:
        raise InputError(f"{asked.data} is a file, so --target is needed: the column to predict. With texts also --text, the column to read.")
    return hs.task_from_table(asked.data, target=asked.target, text=asked.text, kind=asked.kind, group_by=asked.group_by)


def existing(path: Path) -> Path:
    """Return the path; raise ``InputError`` where nothing lies there."""
    if not path.exists():
        from headstart.core import InputError

        raise InputError(f"{path} does not exist. Give a folder with one folder of images per class, or a table: CSV, JSON lines or Parquet.")
    return path


def pool_of(asked: Asked, task: hs.Task) -> list[Source]:
    """Return the sources that were asked for, or all of the task's modality that are here; each lends the data of a neighbouring domain that were named.

    A table of a neighbouring domain is a source itself.
    """
    import headstart as hs

    if asked.source_data is not None and task.modality == "tabular":
        from headstart.pretrain import source_from_table

        return [source_from_table(other_of(asked, task), task, seed=asked.seed)]
    pool = [hs.sources.get(name) for name in asked.names] if asked.names else hs.sources.available(task)
    return pool if asked.source_data is None else hs.lend(pool, other_of(asked, task), task)


def other_of(asked: Asked, task: hs.Task) -> hs.Task:
    """Return the data of a neighbouring domain: labelled like the task where they can be read so, else without labels."""
    import headstart as hs
    from headstart.core import InputError
    from headstart.modality.table import unlabelled_from_table

    place = existing(asked.source_data or asked.data)
    if task.modality == "image":
        try:
            return hs.Task.from_folder(place)
        except InputError:
            return hs.Task.unlabelled_from_folder(place)
    text = task.columns.get("text")
    if asked.target is None:
        return unlabelled_from_table(place, text=text)
    return hs.task_from_table(place, target=asked.target, text=text, kind=asked.kind)


def print_result(console: Console, result: Result) -> None:
    """Print the ranked sources, the arms and the verdict."""
    ranked = Table(
        "source", f"{result.metric}, 90 % interval", "parameters", title="Sources, by a probe on frozen features", title_justify="left", box=SIMPLE, **NARROW
    )
    for source in result.sources:
        ranked.add_row(source.name, with_interval(source.probe), counted(source.parameters))
    test = f"held out, n={result.found.n_test}"
    arms = Table(
        "arm", "source", "cross-validated", test, title=f"What was reached: {result.metric}, 90 % intervals", title_justify="left", box=SIMPLE, **NARROW
    )
    for arm in result.arms:
        arms.add_row(ARMS[arm.name], arm.source or f"none ({arm.method})", with_interval(arm.cv), with_interval(arm.test))
    console.print(ranked, arms)
    if len(result.contenders) > 1:
        console.print(_contenders(result))
    if result.front:
        console.print(_front(result))
    console.print(f"Verdict: {result.verdict}", style="bold", highlight=False, soft_wrap=True)
    for sentence in result.outlook.sentences() if result.outlook is not None else ():
        console.print(sentence, highlight=False, soft_wrap=True)
    console.print(f"Shipped: {ARMS[result.shipped]}.", highlight=False)
    if result.stopped_by == "budget":
        console.print("The budget ended before the plan did; more time may find more.", highlight=False)
    for note in result.notes:
        console.print(note, highlight=False, soft_wrap=True)


def _contenders(result: Result) -> Table:
    """Each source and method by itself against no transfer."""
    title = f"Each by itself against no transfer, p adjusted for {len(result.contenders)} (Holm): {result.metric}, 90 % intervals"
    table = Table("source", "method", "gain", "p", "adjusted", "", title=title, title_justify="left", box=SIMPLE, **NARROW)
    for one in result.contenders:
        low, high = one.interval
        gain = f"{one.gain:+.3f} [{low:+.3f}, {high:+.3f}]"
        table.add_row(one.source, one.method, gain, f"{one.p:.3f}", f"{one.p_holm:.3f}", "helps" if one.helps else "not shown")
    return table


def _front(result: Result) -> Table:
    """What no other trial beats in score, size and latency at once."""
    points = chosen(result.front)
    title = f"Not dominated, {len(points)} of {len(result.front)} finished trials: {result.metric} on the search folds"
    table = Table("trial", "source", "method", "score", "on disk", "memory", "latency", title=title, title_justify="left", box=SIMPLE, **NARROW)
    for one in points:
        trial = result.trials[one.trial]
        sizes = (bytes_told(one.size), bytes_told(one.memory), seconds_told(one.latency))
        table.add_row(str(one.trial), trial.source or "none", trial.method, f"{one.score:.3f}", *sizes)
    return table


def predict_to_csv(run: Path, inputs: Sequence[Path], out: Path) -> None:
    """Predict images, or the rows of one table, and write a CSV file, whole or not at all."""
    from headstart.core import InputError
    from headstart.export import Predictor, load, read_inputs

    result = load(run)
    names, items = read_inputs(result, inputs)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        rows = list(map(_predicted, names, result.predict(items)))
    for warning in said:
        print(f"headstart: {warning.message}", file=sys.stderr)
    first = "path" if isinstance(result.model, Predictor) and result.model.modality == "image" else "row"
    header = [first, "label", "probability", *(f"p({label})" for label in result.labels)] if result.labels else [first, "value", "low", "high"]
    scratch = out.with_name(f".{out.name}.new")
    try:
        with scratch.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        os.replace(scratch, out)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}). Choose another --out, or free space and rights there.") from None
    print(f"{len(rows)} predictions: {out}")


def _predicted(name: str, one: Prediction | PredictedValue) -> list[str]:
    if isinstance(one, PredictedValue):
        return [name, *(f"{v:.6g}" for v in (one.value, *one.interval))]
    return [name, one.label, f"{one.probability:.6f}", *(f"{v:.6f}" for v in one.probabilities)]


def write_report(run: Path) -> Path:
    """Write the report into the run's folder and return its path."""
    from headstart.core import InputError
    from headstart.export import load
    from headstart.report import write

    result = load(run)  # why: also right after a run, so that the page is the one that a later call draws, and the folder is known to load
    try:
        return write(result, run / REPORT_FILE)
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise InputError(f"{run / REPORT_FILE} cannot be written: {what}. Free space or rights there, then: headstart report {run}") from None


def with_interval(score: Score) -> str:
    """Return a score with its interval, such as 0.812 [0.770, 0.854]."""
    interval = "" if score.interval is None else f" [{score.interval[0]:.3f}, {score.interval[1]:.3f}]"
    return f"{score.value:.3f}{interval}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

"""What ``headstart assess`` prints: the advice first, then sources with what was measured, and what each view says of the one that leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from headstart.assessment import AssessedSource, Assessment
from headstart.result import Score
from headstart.terminal import NARROW, Asked, existing, other_of, pool_of, task_of, with_interval

if TYPE_CHECKING:
    import headstart as hs
    from headstart.core import Source

VIEWS = {"feature": "features", "task": "task", "data": "data", "architecture": "architecture"}


@dataclass
class Steps:
    """Draws what is running, on standard error, so that JSON on standard output stays whole."""

    bars: Progress

    def say(self, text: str) -> None:
        self.bars.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def phase(self, name: str, total: int | None) -> None:
        for task in list(self.bars.tasks):
            self.bars.remove_task(task.id)
        self.bars.add_task(name, total=total)

    def advance(self, label: str, k: int) -> None:
        for task in self.bars.tasks:
            self.bars.update(task.id, advance=k)


def assess_and_print(asked: Asked, *, anchor: bool, as_json: bool, out: Path | None) -> None:
    """Assess, print what was found, and write it where that was asked for."""
    import headstart as hs

    task = _task(asked)
    other = None if asked.source_data is None else other_of(asked, task)
    pool = _sources(asked, task)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        found = hs.assess(
            task, pool, other=other, anchor=anchor, seed=asked.seed, engine=asked.engine, skip_unreadable=asked.skip_unreadable, observer=Steps(bars)
        )
    if out is not None:
        _write(found, out)
    if as_json:
        print(found.to_json(), end="")
        return
    print_assessment(Console(), found)


def print_assessment(console: Console, found: Assessment) -> None:
    """Print the advice, the ranked sources, and what is known of the first."""
    console.print(f"Advice: {found.advice}. {found.words}", style="bold", highlight=False, soft_wrap=True)
    if found.baseline is not None:
        console.print(
            f"No transfer ({found.baseline_method}): {found.metric} {with_interval(found.baseline)} on {found.n_used} of {found.n}.",
            highlight=False,
            soft_wrap=True,
        )
        console.print(_ranking(found))
    if found.anchor:
        console.print(_promises(found))
    for place, source in enumerate(found.sources, 1):
        console.print(f"{place}. {source.name}: {source.why}", highlight=False, soft_wrap=True)
    _first(console, found.sources[0])
    for words in (found.structure, *(f"Not known: {what}." for what in found.unknown), *found.notes):
        if words:
            console.print(words, highlight=False, soft_wrap=True)
    tuned = [s for s in found.sources if s.fine_tuned is not None]
    if tuned and not found.anchor:
        console.print("No fine-tuned score is promised without an anchor run: --anchor makes one.", highlight=False, soft_wrap=True)
    console.print(f"It took {found.times['total']:.0f} s.", highlight=False)


def _ranking(found: Assessment) -> Table:
    title = f"Frozen features + head: {found.metric}, gain over no transfer, 90 % intervals"
    table = Table("source", "measured", "gain", "P(harm)", "s", title=title, title_justify="left", box=SIMPLE, **NARROW)
    for source in found.sources:
        if source.frozen is not None and source.gain is not None:
            low, high = source.gain.interval
            gain = f"{source.gain.value:+.3f} [{low:+.3f}, {high:+.3f}]"
            table.add_row(source.name, with_interval(source.frozen), gain, f"{source.gain.p_harm:.2f}", f"{found.times[source.name]:.0f}")
    return table


def _promises(found: Assessment) -> Table:
    table = Table("source", "foretold", "P(harm)", title=f"Fine-tuned, after an anchor run on {found.anchor}", title_justify="left", box=SIMPLE, **NARROW)
    for source in found.sources:
        if (told := source.fine_tuned) is not None:
            low, high = told.interval
            table.add_row(source.name, f"{told.value:.3f} [{low:.3f}, {high:.3f}]", "-" if told.p_harm is None else f"{told.p_harm:.2f}")
    return table


def _first(console: Console, source: AssessedSource) -> None:
    console.print(f"\n{source.name} from four sides", style="bold", highlight=False)
    for view, title in VIEWS.items():
        scores = [score for score in source.scores if score.view == view]
        if scores:
            console.print(f"  {title}: " + "; ".join(_short(score) for score in scores), highlight=False, soft_wrap=True)
    if source.stages:
        console.print("  stages: " + ", ".join(f"{s.stage} {s.score.value:.3f}" for s in source.stages), highlight=False, soft_wrap=True)
    if source.nearest:
        pairs = (f"{one.label}: {', '.join(f'{name} {cosine:.2f}' for name, cosine in one.classes[:2])}" for one in source.nearest)
        console.print("  nearest classes: " + "; ".join(pairs), highlight=False, soft_wrap=True)
    console.print(f"  {source.facts}", highlight=False, soft_wrap=True)


def _short(score: Score) -> str:
    return f"{score.name} {score.value:.3g}"


def _task(asked: Asked) -> hs.Task:
    """The task; one without labels where the images lie in one folder, or no target is named."""
    import headstart as hs
    from headstart.core import IMAGE_SUFFIXES, InputError
    from headstart.modality.table import unlabelled_from_table

    if existing(asked.data).is_dir() and not (asked.text or asked.target):
        loose = any(p.suffix.lower() in IMAGE_SUFFIXES for p in asked.data.iterdir())
        return hs.Task.unlabelled_from_folder(asked.data) if loose else hs.Task.from_folder(asked.data, group_by=asked.group_by)
    if asked.target is not None or asked.data.is_dir():
        return task_of(asked)
    if asked.text is None:
        raise InputError(f"{asked.data} is a table; --target is needed for its rows to be assessed, or --text for its texts.")
    return unlabelled_from_table(asked.data, text=asked.text)


def _sources(asked: Asked, task: hs.Task) -> Sequence[Source]:
    import headstart as hs

    if task.modality == "tabular":
        return pool_of(asked, task)
    return [hs.sources.get(name) for name in asked.names or ()] or hs.sources.available(task)


def _write(found: Assessment, out: Path) -> None:
    from headstart.core import InputError

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(found.to_json(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}). Choose another --out.") from None

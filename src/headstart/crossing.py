"""What ``headstart adapt`` reads and prints: the domains, each candidate, the verdict, what is odd, and where result and report lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from headstart.adaptation import SOURCE_ONLY, Adaptation, Candidacy, Distance
from headstart.terminal import NARROW, Bars, with_interval, write_report

if TYPE_CHECKING:
    import headstart as hs

SHOWN = 12  # candidates in the table
MEANINGS = {
    "source": "held-out cases of the source",
    "changed": "target cases whose class is another than by source only",
    "validators": "mean rank by those that the rule looks at",
    "on target": "labelled cases that it was not trained on",
    "scored": "on labels read at the end",
}


@dataclass(frozen=True)
class Crossing:
    """What the user asked of ``headstart adapt``; the last of ``domains`` is the target."""

    domains: Sequence[Path]
    out: Path
    budget: str
    seed: int
    target_labels: str = "none"
    score: bool = False
    text: str | None = None
    target: str | None = None
    kind: str | None = None
    networks: Sequence[str] | None = None
    group_by: str | None = None
    engine: str = "auto"
    margin: float = 0.0
    skip_unreadable: bool = False
    command: str = ""

    @property
    def starts_from_run(self) -> bool:
        """Whether the one source is the folder of a run: a model without its data."""
        from headstart.runs import RUN_FILE

        return len(self.domains) == 2 and (self.domains[0] / RUN_FILE).exists()


def adapt_and_print(asked: Crossing) -> None:
    """Adapt, and print what was found."""
    console = Console()
    from headstart.core import InputError
    from headstart.runs import parse_budget

    seconds = parse_budget(asked.budget)
    if asked.target_labels not in ("none", "some"):
        raise InputError(f"--target-labels {asked.target_labels} is unknown. Say none (the default) or some.")
    if asked.score and asked.target_labels == "some":
        raise InputError("--score reads labels that nothing learned from, and --target-labels some learns from them. Leave one of the two out.")
    if len(asked.domains) < 2:
        raise InputError(f"{len(asked.domains)} domain was given; a source and a target are needed: headstart adapt SOURCE TARGET.")
    import headstart as hs

    sources, target = run_and_target(asked) if asked.starts_from_run else domains_of(asked)
    networks = [hs.sources.get(name) for name in asked.networks] if asked.networks else None
    with Bars(console, seconds) as bars:
        found = hs.adapt(
            sources,
            target,
            networks,
            budget=seconds,
            seed=asked.seed,
            target_labels=asked.target_labels,  # type: ignore[arg-type]
            read_labels=asked.score,
            out=asked.out,
            skip_unreadable=asked.skip_unreadable,
            margin=asked.margin,
            engine=asked.engine,
            observer=bars,
            command=asked.command,
        )
    print_adaptation(console, found)
    console.print(f"Report: {write_report(asked.out)}", highlight=False, soft_wrap=True)
    console.print(f"Result: {asked.out}. To predict: headstart predict {asked.out} NEW --out predictions.csv", highlight=False, soft_wrap=True)


def domains_of(asked: Crossing) -> tuple[list[hs.Task], hs.Task]:
    """Return the labelled sources and the target: all folders of images, or all tables."""
    import headstart as hs
    from headstart.core import InputError
    from headstart.modality.table import target_from_table
    from headstart.runs import RUN_FILE

    *paths, last = asked.domains
    missing = next((path for path in asked.domains if not path.exists()), None)
    if missing is not None:
        raise InputError(f"{missing} does not exist. Give folders of images, or tables, the target last.")
    run = next((path for path in asked.domains if (path / RUN_FILE).exists()), None)
    if run is not None:
        where = "the target" if run == last else "one of several sources"
        raise InputError(f"{run} is a run, a model without its data, and cannot be {where}. Give it as the only source: headstart adapt RUN TARGET.")
    if len({path.is_dir() for path in asked.domains}) > 1:
        raise InputError("Some domains are folders and others files. Give folders of images, or tables, the target last.")
    if last.is_dir():
        if asked.text or asked.target or asked.kind:
            raise InputError(f"{last} is a folder; --text, --target and --kind are for tables. Give CSV, JSON lines or Parquet files.")
        return [hs.Task.from_folder(path, group_by=asked.group_by) for path in paths], hs.Task.target_from_folder(last, group_by=asked.group_by)
    if asked.target is None:
        raise InputError(f"{paths[0]} is a file, so --target is needed: the column to predict. With texts also --text, the column to read.")
    sources = [hs.task_from_table(path, target=asked.target, text=asked.text, kind=asked.kind, group_by=asked.group_by) for path in paths]
    return sources, target_from_table(last, target=asked.target, text=asked.text, kind=sources[0].kind, group_by=asked.group_by)


def run_and_target(asked: Crossing) -> tuple[Path, hs.Task]:
    """Return the run's folder, and the target read as the run's data were: images of a folder, or a table with the same columns."""
    import headstart as hs
    from headstart.core import InputError
    from headstart.export import Predictor
    from headstart.modality.table import target_from_table

    run, last = asked.domains
    if not last.exists():
        raise InputError(f"{last} does not exist. Give a folder of images, or a table, after the run.")
    found = hs.load(run)
    if (last / "run.json").exists() or not isinstance(found.model, Predictor):
        raise InputError(f"{last} is a run, a model without its data, and cannot be the target. Give a folder of images, or a table.")
    if asked.kind:
        raise InputError(f"{run} says whether classes or numbers are predicted. Leave --kind out.")
    if last.is_dir():
        if asked.text or asked.target:
            raise InputError(f"{last} is a folder; --text and --target are for tables. Leave them out.")
        return run, hs.Task.target_from_folder(last, group_by=asked.group_by)
    columns, kind = found.model.columns, "classification" if found.labels else "regression"
    text = asked.text or columns.get("text")
    return run, target_from_table(last, target=asked.target or columns.get("target"), text=text, kind=kind, group_by=asked.group_by)


def print_adaptation(console: Console, found: Adaptation) -> None:
    """Print the candidates, how far the domains are apart, what is odd, and the verdict."""
    console.print(_candidates(found))
    left = len(found.candidates) - SHOWN
    if left > 0:
        console.print(f"and {left} more, in the result.", style="dim", highlight=False)
    for candidate in found.candidates:
        if candidate.status == "failed":
            console.print(f"{candidate.name} failed: {candidate.reason}", style="dim", highlight=False, soft_wrap=True)
    if found.before is not None:
        console.print(_apart(found, found.before), highlight=False, soft_wrap=True)
    if len(found.sources) > 1:
        console.print(f"The source nearest to {found.target.name} is {found.nearest_source}.", highlight=False, soft_wrap=True)
    for odd in found.warned:
        p = "" if odd.p is None else f" (p = {odd.p:.2g})"
        console.print(f"! {odd.words}{p}", style="yellow", highlight=False, soft_wrap=True, markup=False)
    wrong = [move for move in found.moved if move.looks_wrong]
    for move in wrong:
        console.print(f"! {move.moved} of {move.n} cases called {move.label} moved away, it seems wrongly.", style="yellow", highlight=False, soft_wrap=True)
    console.print(f"Verdict: {found.verdict}", style="bold", highlight=False, soft_wrap=True)
    console.print(f"{found.verdict.why}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"Shipped: {_shipped(found)}.", highlight=False, soft_wrap=True)
    if found.stopped_by == "budget":
        console.print("The budget ended before the plan did; more time may find more.", highlight=False)
    for note in found.notes:
        console.print(note, highlight=False, soft_wrap=True, markup=False)


def _candidates(found: Adaptation) -> Table:
    """Return the table of candidates: what they reach on held-out source cases, how they fare on the target, as far as that is known."""
    shown = _ordered(found)[:SHOWN]
    columns: dict[str, Callable[[Candidacy], str]] = {
        "candidate": lambda one: ("* " if one.name == found.choice.candidate else "") + one.name,
        "source": lambda one: f"{one.source_score.value:.3f}" if one.source_score else "",
        "changed": lambda one: "" if one.changed is None or one.target_score is not None else f"{one.changed:.0%}",
        "validators": lambda one: "" if (rank := mean_rank(one)) is None else f"{rank:.1f}",
        "on target": lambda one: "" if one.target_score is None else with_interval(one.target_score),
        "gain": _gain,
        "scored": lambda one: "" if one.scored is None else with_interval(one.scored),
    }
    kept = {title: column for title, column in columns.items() if any(column(one) for one in shown)}
    table = Table(*kept, title=f"Candidates: {found.metric}, 90 % intervals", title_justify="left", box=SIMPLE, **NARROW)
    meaning = "; ".join(f"{title}: {words}" for title, words in MEANINGS.items() if title in kept)
    table.caption, table.caption_justify = meaning, "left"
    for one in shown:
        table.add_row(*(column(one) for column in kept.values()), style="dim" if one.collapsed else None)
    return table


def _ordered(found: Adaptation) -> list[Candidacy]:
    """Return source only first, the chosen one next, then those with outputs by what is known of them: measured gain, else what validators say."""
    complete = [one for one in found.candidates if one.status == "complete"]
    return sorted(complete, key=lambda one: (one.name != SOURCE_ONLY, one.name != found.choice.candidate, -(one.gain or 0.0), mean_rank(one) or len(complete)))


def mean_rank(one: Candidacy) -> float | None:
    """Return the mean rank of a candidate over those validators of the rule's panel that could judge it; 1 is the best of all."""
    from headstart.validators.panel import PANEL

    ranks = [opinion.rank for opinion in one.said if opinion.validator in PANEL and opinion.rank is not None]
    return sum(ranks) / len(ranks) if ranks else None


def _gain(one: Candidacy) -> str:
    if one.gain is None or one.interval is None:
        return ""
    return f"{one.gain:+.3f} [{one.interval[0]:+.3f}, {one.interval[1]:+.3f}]"


def _apart(found: Adaptation, before: Distance) -> str:
    words = f"A classifier tells {found.target.name} from the source with AUC {with_interval(before.auc)} (.5: not at all)"
    if found.after is None or found.after == before:
        return f"{words}."
    return f"{words}; after {found.choice.candidate} with {with_interval(found.after.auc)}."


def _shipped(found: Adaptation) -> str:
    one = found.candidate(found.shipped)
    on = f" on {one.network}" if one is not None and one.network else ""
    return f"{found.shipped}{on}"

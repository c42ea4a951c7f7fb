"""The command line: each command parses, calls one function and prints."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from headstart import __version__, launched

app = typer.Typer(name="headstart", help="Transfer learning that proves it helped.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Out = Annotated[Path, typer.Option(help="Folder of the run: journal, result, model and report.")]


@app.callback(invoke_without_command=True)
def about(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    """Transfer learning that proves it helped."""
    if version:
        print(f"headstart {__version__}")
        raise typer.Exit


@app.command()
def transfer(
    data: Annotated[Path, typer.Argument(help="Folder with one folder of images per class, or a table: CSV, JSON lines, Parquet.")],
    out: Out,
    budget: Annotated[str, typer.Option(help="Time to spend, such as 90s, 5m, 2h.")] = "5m",
    seed: Annotated[int, typer.Option(help="Decides splits, initial weights and proposals.")] = 0,
    text: Annotated[str | None, typer.Option(help="Column that holds the texts; without it, all columns are a table.")] = None,
    target: Annotated[str | None, typer.Option(help="Column to predict: labels, or numbers.")] = None,
    source_data: Annotated[Path | None, typer.Option(help="Data of a neighbouring domain: a table to transfer from, or cases to borrow.")] = None,
    kind: Annotated[str | None, typer.Option(help="classification or regression; default: as the target column looks.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="A source to try; may be repeated. Default: all that are installed.")] = None,
    group_by: Annotated[str | None, typer.Option(help="What is never split: regular expression on the path, e.g. '(patient\\d+)', or a column.")] = None,
    engine: Annotated[str, typer.Option(help="What runs frozen stages: auto (measured, and checked), torch, torch-bf16, openvino, ...")] = "auto",
    methods: Annotated[
        str | None,
        typer.Option(help="Ways to try on the best source, such as lp-ft,l2-sp. Default: discriminative for images, else lp-ft. List: headstart methods."),
    ] = None,
    search: Annotated[str, typer.Option(help="Who proposes trials, in one space: random, grid, bayes, gp, halving, hyperband. Default: a plan.")] = "",
    trials: Annotated[int | None, typer.Option(help="Most trials of the search. Default: what the budget pays for.")] = None,
    folds: Annotated[str, typer.Option(help="Where settings are compared: 5 folds, 3x5 (repeated), 0.2 (one validation split).")] = "5",
    prior: Annotated[Path | None, typer.Option(help="Folder of a past run whose best settings are tried first.")] = None,
    max_size: Annotated[str | None, typer.Option(help="Most bytes on disk of the final model, such as 20MB.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Most memory of predicting one input, such as 500MB: weights and activations.")] = None,
    max_latency: Annotated[str | None, typer.Option(help="Most time for one input on this machine, such as 20ms.")] = None,
    pareto: Annotated[bool, typer.Option("--pareto", help="Show score against size and latency; shown with any bound.")] = False,
    train: Annotated[str | None, typer.Option(help="How networks are trained, such as held_in=0.1,soup=3 or mixup=0.2. All: README.")] = None,
    margin: Annotated[float, typer.Option(help="Smallest gain in balanced accuracy or R2, 0..1, that is worth a transfer.")] = 0.0,
    runner: Annotated[str, typer.Option(help="Where folds are computed: here, or ray (a Ray cluster). The result is the same.")] = "here",
    address: Annotated[str, typer.Option(help="Of the Ray cluster's head, such as 10.0.0.1:6379. auto: the cluster of this machine.")] = "auto",
    skip_unreadable: Annotated[bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read, and empty texts.")] = False,
) -> None:
    """Transfer to a folder of images, to texts or to a table, and say whether it helped."""
    from headstart.terminal import Asked, transfer_and_report

    what = {"text": text, "target": target, "source_data": source_data, "kind": kind, "group_by": group_by}
    terms = {"search": search, "trials": trials, "folds": folds, "prior": prior}
    most = {"size": max_size, "memory": max_memory, "latency": max_latency}
    bounds = most if pareto or any(value is not None for value in most.values()) else None
    rest = {"engine": engine, "methods": methods, "train": train, "margin": margin, "skip_unreadable": skip_unreadable, "command": _command(out)}
    transfer_and_report(Asked(data, out, budget, seed, source, terms=terms, bounds=bounds, runner=(runner, address), **what, **rest))  # type: ignore[arg-type]


@app.command()
def adapt(
    domains: Annotated[list[Path], typer.Argument(metavar="SOURCE... TARGET", help="Folders of images, or tables: labelled sources, or a run; target last.")],
    out: Out,
    target_labels: Annotated[str, typer.Option(help="none: no label of the target is read; some: those that it has train and test. README says how.")] = "none",
    budget: Annotated[str, typer.Option(help="Time to spend, such as 90s, 5m, 2h.")] = "5m",
    seed: Annotated[int, typer.Option(help="Decides splits and first weights.")] = 0,
    text: Annotated[str | None, typer.Option(help="Column that holds the texts; without it, all shared columns are a table.")] = None,
    target: Annotated[str | None, typer.Option(help="Column to predict; the target's file may lack it, or have empty cells.")] = None,
    kind: Annotated[str | None, typer.Option(help="classification or regression; default: as the source's target column looks.")] = None,
    network: Annotated[list[str] | None, typer.Option(help="A network whose features are tried; may be repeated. Default: all that are installed.")] = None,
    group_by: Annotated[str | None, typer.Option(help=r"What is never split: regular expression on the path, e.g. '(patient\d+)', or a column.")] = None,
    engine: Annotated[str, typer.Option(help="What runs the networks; see transfer.")] = "auto",
    margin: Annotated[float, typer.Option(help="Smallest gain in balanced accuracy or R2, 0..1, that is worth adapting.")] = 0.0,
    score: Annotated[bool, typer.Option("--score", help="Read the target's labels once, at the end, to score what was found.")] = False,
    skip_unreadable: Annotated[bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read, and empty texts.")] = False,
) -> None:
    """Adapt from labelled domains to one that looks different and has few labels or none."""
    from headstart.crossing import Crossing, adapt_and_print

    what = {"text": text, "target": target, "kind": kind, "networks": network, "group_by": group_by, "engine": engine}
    rest = {"target_labels": target_labels, "score": score, "margin": margin, "skip_unreadable": skip_unreadable, "command": _command(out)}
    adapt_and_print(Crossing(domains, out, budget, seed, **what, **rest))  # type: ignore[arg-type]


@app.command()
def multitask(
    data: Annotated[Path, typer.Argument(help="Table with texts and several columns to predict: CSV, JSON lines, Parquet. Empty cells are missing labels.")],
    target: Annotated[list[str], typer.Option(help="Column to predict; two or more.")],
    text: Annotated[str, typer.Option(help="Column that holds the texts.")],
    out: Out,
    source: Annotated[str | None, typer.Option(help="Whose stages are the trunk. Default: the first that is installed.")] = None,
    budget: Annotated[str, typer.Option(help="Time to spend, such as 90s, 5m, 2h.")] = "10m",
    seed: Annotated[int, typer.Option(help="Decides splits, first weights and batches.")] = 0,
    group_by: Annotated[str | None, typer.Option(help="Column of what is never split.")] = None,
    balance: Annotated[str, typer.Option(help="Of the tasks' losses: uniform, uncertainty or surgery.")] = "uniform",
    sampling: Annotated[str, typer.Option(help="Of the tasks' cases: proportional, sqrt or equal.")] = "proportional",
    margin: Annotated[float, typer.Option(help="Smallest gain in balanced accuracy or R2, 0..1, that is worth learning together.")] = 0.0,
) -> None:
    """Learn several columns of one table of texts together, and say for each whether that beats learning it alone."""
    from headstart.terminal import Asked, learn_together_and_print

    asked = Asked(data, out, budget, seed, None if source is None else [source], text=text, group_by=group_by, margin=margin)
    learn_together_and_print(asked, target, balance=balance, sampling=sampling)


@app.command()
def assess(
    data: Annotated[Path, typer.Argument(help="As for transfer; or a folder of images, or a table, without labels.")],
    sources: Annotated[str | None, typer.Option(help="Sources to compare, separated by commas. Default: all that are installed.")] = None,
    source_data: Annotated[Path | None, typer.Option(help="Data of a neighbouring domain to compare with: a folder, or a table.")] = None,
    text: Annotated[str | None, typer.Option(help="Column that holds the texts; without it, all columns are a table.")] = None,
    target: Annotated[str | None, typer.Option(help="Column to predict: labels, or numbers.")] = None,
    kind: Annotated[str | None, typer.Option(help="classification or regression; default: as the target column looks.")] = None,
    group_by: Annotated[str | None, typer.Option(help="What is never split: regular expression on the path, e.g. '(patient\\d+)', or a column.")] = None,
    anchor: Annotated[bool, typer.Option("--anchor", help="Fine-tune the leading source once, so that fine-tuned scores can be promised.")] = False,
    seed: Annotated[int, typer.Option(help="That of transfer, so that what it holds out stays unseen.")] = 0,
    engine: Annotated[str, typer.Option(help="What runs the networks; see transfer.")] = "auto",
    skip_unreadable: Annotated[bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read, and empty texts.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[Path | None, typer.Option(help="File to write the findings to, as JSON.")] = None,
) -> None:
    """Say which source will help, and whether it is worth it, before any training."""
    from headstart.briefing import assess_and_print
    from headstart.terminal import Asked

    names = None if sources is None else [name.strip() for name in sources.split(",") if name.strip()]
    given = {"source_data": source_data, "text": text, "target": target, "kind": kind, "group_by": group_by, "engine": engine}
    asked = Asked(data, Path(), "10s", seed, names, skip_unreadable=skip_unreadable, **given)  # type: ignore[arg-type]
    assess_and_print(asked, anchor=anchor, as_json=json, out=out)


@app.command()
def doctor(
    data: Annotated[Path, typer.Argument(help="As for transfer.")],
    predict: Annotated[Path | None, typer.Option(help="What will be predicted: a folder of images, or a table. Is it like the data?")] = None,
    text: Annotated[str | None, typer.Option(help="Column that holds the texts; without it, all columns are a table.")] = None,
    target: Annotated[str | None, typer.Option(help="Column to predict: labels, or numbers.")] = None,
    kind: Annotated[str | None, typer.Option(help="classification or regression; default: as the target column looks.")] = None,
    group_by: Annotated[str | None, typer.Option(help="What is never split: regular expression on the path, e.g. '(patient\\d+)', or a column.")] = None,
    seed: Annotated[int, typer.Option(help="Decides the folds in which labels are checked.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what looks wrong with the data, before anything runs on them."""
    from headstart.terminal import Asked, diagnose_and_print

    diagnose_and_print(Asked(data, Path(), "10s", seed, text=text, target=target, kind=kind, group_by=group_by), other=predict, as_json=json)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    inputs: Annotated[list[Path], typer.Argument(help="Images or folders of images; for texts and tables one file.")],
    out: Annotated[Path, typer.Option(help="CSV file to write: path, label, probability, and each label's probability; or value, low, high.")],
) -> None:
    """Predict labels with calibrated probabilities, or numbers with 90 % intervals."""
    from headstart.terminal import predict_to_csv

    predict_to_csv(run, inputs, out)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Folder of a finished run.")]) -> None:
    """Write the report of a run again, and say where it is."""
    from headstart.terminal import write_report

    print(f"Report: {write_report(run)}")


@app.command()
def eject(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path | None, typer.Option(help="Script to write; default: eject.py in the run's folder.")] = None,
) -> None:
    """Write the run as one plain script: every layer's learning rate, the same score, and no Headstart."""
    from headstart.ejected import eject

    print(f"Script: {eject(run, out)}")


@app.command()
def sources(
    modality: Annotated[str | None, typer.Option(help="Only those for image, text or tabular.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    measure: Annotated[bool, typer.Option("--measure", help="First measure what an input costs in each, on this machine, and remember it.")] = False,
) -> None:
    """List what can be transferred from."""
    from headstart.listing import print_sources

    print_sources(modality=modality, as_json=json, measure=measure)


@app.command()
def methods(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List how can be transferred: each method with what it needs, what it searches, and its paper."""
    from headstart.listing import print_methods

    print_methods(as_json=json)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all stored activations.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what stored activations take on disk, or remove them."""
    from headstart.listing import print_cache

    print_cache(clear=clear, as_json=json)


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    try:
        with _crew():
            app()
    except ValueError as error:
        from headstart.core import InputError

        if not isinstance(error, InputError):
            raise
        print(f"headstart: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("headstart: stopped. Run the same command again to go on.", file=sys.stderr)
        raise SystemExit(130) from None


@contextlib.contextmanager
def _crew() -> Iterator[None]:
    """Let the processes that torchrun started work for the first one, which alone goes on."""
    if launched.processes() == 1:
        yield
        return
    from headstart.core import InputError
    from headstart.crew import together

    command = next(iter(sys.argv[1:]), "")
    if command != "transfer" and os.environ.get("RANK") != "0":
        raise SystemExit(0)
    if command != "transfer":
        raise InputError(f"Several processes can share the training of transfer. Run headstart {command} without torchrun.")
    with together():
        yield


def _command(out: Path) -> str:
    """The command without its --out, --runner and --address, which do not decide the result."""
    import shlex

    aside = ("--out", "--runner", "--address")
    words = sys.argv[1:]
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and word not in aside and not word.startswith(tuple(f"{name}=" for name in aside)):
            kept.append(word)
        skip = word in aside
    launcher = ["torchrun", "--nproc-per-node", str(launched.processes()), "-m"] if launched.processes() > 1 else []
    return shlex.join([*launcher, "headstart", *kept])

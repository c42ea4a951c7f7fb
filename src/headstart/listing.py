"""What ``headstart sources``, ``headstart methods`` and ``headstart cache`` print."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from headstart.result import counted

if TYPE_CHECKING:
    from headstart.core import Source

NARROW: dict[str, Any] = {"show_edge": False, "padding": (0, 0, 0, 0)}  # why: eight columns fit into 80 characters
MODALITIES = ("image", "text", "tabular")
KEYS = ("name", "modality", "family", "parameters", "dim", "stages", "trained_on", "licence", "origin", "by_name")


def print_sources(*, modality: str | None, as_json: bool, measure: bool = False) -> None:
    """List the catalogue: each source with its parameters, width, stages, licence, measured cost, and whether it is on this machine.

    ``measure`` first measures what an input costs in each that is here.
    """
    from headstart.activations.costs import known
    from headstart.activations.store import default_root
    from headstart.core import InputError
    from headstart.sources import catalogue

    if modality is not None and modality not in MODALITIES:
        raise InputError(f"There is no modality {modality!r}. Say {', '.join(MODALITIES)}.")
    listed = [source for source in catalogue() if modality in (None, source.modality)]
    if measure:
        _measure([source for source in listed if source.opener is not None])
    costs = known(default_root())
    rows = [_row(source, costs) for source in listed]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    # why: a name that is cut cannot be typed
    table = Table(
        Column("name", no_wrap=True),
        Column("family", no_wrap=True),
        Column("params", no_wrap=True),
        "dim",
        "stages",
        Column("licence", no_wrap=True),
        "ms",
        "here",
        box=SIMPLE,
        **NARROW,
    )
    for row in rows:
        size = counted(row["parameters"]) if row["parameters"] else "-"  # why: a user's own is not opened to be listed
        words = [row["name"], row["family"] or "-", size, str(row["dim"] or "-"), str(len(row["stages"]) or "-"), row["licence"] or "-"]
        cost = "-" if row["seconds_each"] is None else f"{1000 * row['seconds_each']:.1f}"
        table.add_row(*words, cost, "yes" if row["installed"] else "no")
    console = Console()
    console.print(table)
    for trained_on in dict.fromkeys(row["trained_on"] for row in rows if row["trained_on"]):
        names = ", ".join(row["name"] for row in rows if row["trained_on"] == trained_on)
        console.print(f"Trained on {trained_on}: {names}.", highlight=False, soft_wrap=True)
    for row in rows:
        if not row["installed"]:
            console.print(f"To get {row['name']}: {row['origin']}", highlight=False, soft_wrap=True)
    named = [row["name"] for row in rows if row["by_name"]]
    if named:
        console.print(f"Tried only where it is named, with --source: {', '.join(named)}.", highlight=False, soft_wrap=True)
    if any(row["installed"] and row["seconds_each"] is None for row in rows):
        console.print("Milliseconds for each input are known after a run, or after: headstart sources --measure", highlight=False, soft_wrap=True)
    console.print(
        "Others by name or place: timm:NAME, torchvision:WEIGHTS, hf:NAME, ARCHITECTURE@FILE, a folder, an .onnx file.", highlight=False, soft_wrap=True
    )


def print_methods(*, as_json: bool) -> None:
    """List the methods: level, arm, needs, hyperparameters with their defaults and spaces, paper and limits."""
    from headstart.methods import ALIASES, DEEP, METHODS

    rows = [_method_row(name, kind) for name, kinds in METHODS.items() for kind in kinds] + [_method_row(name, kind) for name, kind in DEEP.items()]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(
        Column("name", no_wrap=True), "level", Column("arm", no_wrap=True), "needs", "searches", "paper", box=SIMPLE, **{**NARROW, "padding": (0, 1, 0, 0)}
    )
    for row in rows:
        table.add_row(row["name"], row["level"], row["arm"], ", ".join(row["needs"]) or "-", ", ".join(row["hyperparameters"]), row["paper"].split(",")[0])
    console = Console()
    console.print(table)
    console.print("Those of level relation take a second domain: headstart adapt.", highlight=False)
    for other, name in ALIASES.items():
        console.print(f"{other} is {name}.", highlight=False)
    console.print(
        "Try some: headstart transfer ... --methods lp-ft,l2-sp. Spaces and limits of each: headstart methods --json", highlight=False, soft_wrap=True
    )


def print_cache(*, clear: bool, as_json: bool) -> None:
    """Say where activations lie and what they take, by source; or remove them and say what was freed."""
    from headstart.activations.store import Store, default_root

    store = Store(default_root())
    if clear:
        print(f"{_mib(store.clear())} freed in {store.root}")
        return
    sizes = store.sizes()
    if as_json:
        print(json.dumps({"folder": str(store.root), "bytes": sum(sizes.values()), "limit": store.limit, "sources": sizes}, indent=1))
        return
    print(f"{store.root}: {_mib(sum(sizes.values()))} of at most {_mib(store.limit)} (HEADSTART_CACHE_SIZE)")
    for name, size in sorted(sizes.items(), key=lambda kv: -kv[1]):
        print(f"  {_mib(size):>12}  {name}")


def _measure(sources: Sequence[Source]) -> None:
    """Measure and remember what an input costs, with a bar on standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from headstart.activations.costs import measure, record
    from headstart.activations.store import default_root

    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("measuring", total=len(sources))
        for source in sources:
            bars.update(task, description=f"measuring {source.name}")
            seconds, inputs = measure(source)
            record(default_root(), source.weights_sha256, seconds=seconds, inputs=inputs)
            bars.advance(task)


def _row(source: Source, costs: dict[str, float]) -> dict[str, Any]:
    here = source.opener is not None
    # why: hashing weights only to look a cost up would make listing slow, so a cost is only sought where one was ever measured
    cost = costs.get(source.weights_sha256) if here and costs else None
    return {key: getattr(source, key) for key in KEYS} | {"installed": here, "seconds_each": cost}


def _method_row(name: str, kind: type[Any]) -> dict[str, Any]:
    from headstart.methods import space

    defaults = {f.name: f.default for f in dataclasses.fields(kind)}
    knobs = {
        field: {"default": defaults[field], **({"choices": list(k.choices)} if k.choices else {"low": k.low, "high": k.high, "log": k.log})}
        for field, k in space(kind).items()
    }
    what = {"name": name, "class": kind.__name__, "level": kind.level, "arm": kind.arm, "needs": sorted(kind.needs)}
    return {**what, "hyperparameters": knobs, "paper": kind.paper, "limits": kind.limits}


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"

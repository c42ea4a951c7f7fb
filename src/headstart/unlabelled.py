"""Assessing what nobody has labelled: the data are compared and described, and it is said what cannot be known."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from headstart import forecast
from headstart.activations.store import Store, default_root
from headstart.assessment import Assessment
from headstart.bench import Observer
from headstart.choice import PLAIN
from headstart.core import Inspection, Source, Task
from headstart.evidence import THINGS
from headstart.looking import Onlooker, Sight, agreement, assessed, features_of, unlike
from headstart.similarity.structure import structure
from headstart.views import Views

UNKNOWN = (
    "which source is best for labels that are not there yet",
    "what score can be reached, with transfer or without",
    "the risk of negative transfer: label about 50 cases and ask again",
)
UNREAD = "Without labels nothing is known of how well its features tell the classes apart."


def describe(
    given: tuple[Task, Inspection],
    sources: Sequence[Source],
    other: tuple[Task, Inspection] | None,
    *,
    n: int,
    seed: int,
    engine: str,
    observer: Observer,
) -> Assessment:
    """Return what can be said of ``n`` inputs without labels, of which some are ``given``: sources in the order in which they see both data sets alike."""
    began = time.monotonic()
    task, inspection = given
    table = {s.name: s for s in sources}
    # why plain: the check of a faster engine asks a probe, and a probe asks labels
    views = Views(task.target.x, inspection.digests, table, Store(default_root()), task.modality, engine=lambda s: PLAIN if engine == "auto" else engine)
    onlooker = Onlooker(task, views, None, seed)
    times, sights = {}, {}
    for name, source in table.items():
        start = time.monotonic()
        observer.phase(f"features: {name}", len(task.target))
        views.progress = observer.advance
        views.prime(name)
        second = None if other is None else (*other, features_of(other, source, views))
        sights[name] = onlooker.look(source, second)
        times[name] = time.monotonic() - start
    order = _order(table, sights)
    words = "Sources are listed by their own standing, which is all that is known of them here."
    leading = next(iter(table))
    return Assessment(
        task=task.target.name,
        kind="unlabelled",
        modality=task.modality,
        metric="",
        labels=(),
        n=n,
        n_used=len(task.target),
        baseline=None,
        baseline_method="",
        advice="unknown",
        words=words if other is None else f"{order[0]} sees the two data sets most alike.",
        sources=tuple(assessed(table[name], sights[name], why=sights[name].data or UNREAD) for name in order),
        anchor="",
        agreement=agreement({name: sights[name] for name in order}),
        layers=None,
        structure=structure(sights[leading].x, seed=seed).in_words(THINGS[task.modality], leading),
        unknown=UNKNOWN,
        notes=(),
        seed=seed,
        versions=versions(),
        times={**times, "total": time.monotonic() - began},
    )


def _order(table: Mapping[str, Source], sights: Mapping[str, Sight]) -> list[str]:
    standing = {name: forecast.published(name, s.family, s.trained_on) or 0.0 for name, s in table.items()}
    return sorted(table, key=lambda name: (unlike(sights[name]), -standing[name], -table[name].parameters, name))


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide an assessment."""
    return {package: version(package) for package in ("headstart", "torch", "scikit-learn", "numpy")}

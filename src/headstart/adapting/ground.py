"""The ground that every step of an adaptation works on: the domains, their features, the ledger of finished fits, the clock."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from headstart.activations.store import Store, default_root
from headstart.adapting.domains import Domains
from headstart.adapting.origin import Origin
from headstart.bench import Observer, Paced
from headstart.choice import Choice, Chooser
from headstart.core import Backbone, Source, Task
from headstart.evaluate import strata
from headstart.keeping import Settings
from headstart.learner import Candidate
from headstart.ledger import Ledger
from headstart.methods.method import View
from headstart.modality import tabular
from headstart.modality.text import cut_off
from headstart.result import counted
from headstart.search import Clock
from headstart.similarity.probes import left_out, rated
from headstart.similarity.two_sample import classifier, one_thread, pool
from headstart.train import PLAIN, OutOfTime
from headstart.views import Views

# the share of the budget that is used up when a step must end; what a step leaves over, the next ones have
SHARES = {"features": 0.50, "source only": 0.60, "closed": 0.76, "deep": 0.88, "choose": 0.92, "evidence": 0.97}
PER_SECOND = 1e6  # parameters that a second of budget pays for, as in a transfer: loading a network cannot be broken off
LOOKED_AT = 1000  # cases of each domain that a network is chosen by
HALF = 1.645  # standard errors to either side of a 90 % interval


@dataclass
class Ground(Paced):
    """What every step works on. ``networks`` are those whose features are made, ``origin`` the run that is gone on from where the source has no cases."""

    shares: ClassVar[Mapping[str, float]] = SHARES

    domains: Domains
    networks: dict[str, Source]
    views: Views
    chooser: Chooser
    ledger: Ledger
    clock: Clock
    observer: Observer
    seed: int
    settings: Settings = PLAIN
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    ran_out: bool = False
    limit: float = math.inf
    origin: Origin | None = None

    def final(self, network: str) -> np.ndarray:
        """Return the final pooled features (n, d) of all cases by that network."""
        source = self.networks[network]
        return np.asarray(self.views.array(View("pooled", network, (len(source.stages),))))


def grounded(
    domains: Domains,
    networks: Sequence[Source],
    *,
    folder: Path,
    clock: Clock,
    observer: Observer,
    seed: int,
    engine: str,
    origin: Origin | None = None,
    settings: Settings = PLAIN,
) -> Ground:
    """Return the ground: views of all cases of all domains in one, so that a case is computed once, and what earlier calls finished in ``folder``."""
    ledger = Ledger(folder / "folds")
    clock.spent = ledger.seconds()
    table = {s.name: s for s in networks}
    store = Store(default_root())
    chooser = Chooser(engine, domains.items, domains.digests, domains.y, domains.train, domains.classes, store, folder, observer.say)
    if origin is not None:  # why: the model's head was fitted on what that engine made, and no case is there to check another by
        chooser.choices |= {name: Choice(origin.predictor.engine_here()) for name in table if engine == "auto"}
    views = Views(domains.items, domains.digests, table, store, domains.task.modality, engine=chooser)
    ground = Ground(domains, table, views, chooser, ledger, clock, observer, seed, settings, origin=origin)
    views.progress = ground.progress
    return ground


@dataclass(frozen=True)
class Fitness:
    """How well a network suits: leave-one-out ridge on source labels with its standard error, and the AUC by which its features tell the domains apart."""

    name: str
    score: float
    error: float
    auc: float

    def __str__(self) -> str:
        return f"{self.score:.3f} on source labels (ridge, each case left out), domains told apart with AUC {self.auc:.3f}"


def choose_network(ground: Ground) -> tuple[str, dict[str, str]]:
    """Make the features of every network that the budget pays for; return the one to adapt on, and what was found of each, in words.

    The rule: of the networks whose leave-one-out ridge on source labels is within one standard error of the best, the one by whose features the domains
    are told apart least. One that sees classes well but the domains far apart would leave much to mend; one that sees neither, nothing to carry over.
    """
    found: list[Fitness] = []
    for place, (name, source) in enumerate(ground.networks.items()):
        if place and source.parameters > ground.clock.budget * PER_SECOND:
            least = f"{source.parameters / PER_SECOND:.0f} s"
            ground.notes.append(f"{name} was not tried: its {counted(source.parameters)} parameters ask for a budget of {least} or more.")
            continue
        ground.begin("features", f"features: {name}", len(ground.domains.items))
        try:
            ground.views.prime(name)
        except OutOfTime:
            ground.ran_out = True
            ground.notes.append(f"The budget ended while features of {name} were made; networks from there on were not tried.")
            break
        if source.modality == "text" and (long := cut_off(ground.domains.items, source.backbone)):
            most = source.backbone.preprocess.max_length  # type: ignore[union-attr]
            ground.notes.append(f"{long} of {len(ground.domains.items)} texts are longer than the {most} tokens that {name} reads; the rest was cut off.")
        found.append(_fitness(ground, name))
    if not found:
        return "", {}
    best = max(found, key=lambda one: one.score)
    near = [one for one in found if one.score >= best.score - best.error]
    return min(near, key=lambda one: one.auc).name, {one.name: str(one) for one in found}


def _fitness(ground: Ground, name: str) -> Fitness:
    domains, x = ground.domains, ground.final(name)
    rows = _some(domains.train, ground.seed)
    y = np.unique(domains.y[rows], return_inverse=True)[1] if domains.classes else domains.y[rows]
    with one_thread():
        value, interval = rated(left_out(x[rows], y, domains.task.kind), y, domains.task.kind)  # type: ignore[arg-type]
        both = pool(x[domains.target], x[domains.source], seed=ground.seed, most=LOOKED_AT // 2)
        auc = float(classifier(both, both.labellings(0))[0])
    error = 0.0 if interval is None else (interval[1] - interval[0]) / (2 * HALF)
    return Fitness(name, value, error, max(auc, 1.0 - auc))


def _some(rows: np.ndarray, seed: int) -> np.ndarray:
    return rows if len(rows) <= LOOKED_AT else np.sort(np.random.default_rng(seed).choice(rows, LOOKED_AT, replace=False))


def columns_source(task: Task, rows: Sequence[Mapping[str, float | str]]) -> Source:
    """Return a source whose only feature is the columns of a table as they are, standardised by the rows given; categories become a column each.

    >>> import torch
    >>> from headstart.core import Domain
    >>> rows = [{"a": 1.0}, {"a": 3.0}]
    >>> columns_source(Task("regression", "tabular", Domain("d", rows, [0.0, 1.0])), rows).backbone(torch.tensor([[3.0]])).item()
    1.0
    """
    features = tabular.features_of(rows)
    about = json.dumps([[tabular.digest(row) for row in rows], features])
    return Source(
        name="columns",
        family="columns",
        dim=len(features),
        stages=("columns",),
        trained_on=f"nothing: the columns of {task.target.name}, standardised",
        licence="yours",
        modality="tabular",
        opener=partial(_standardised, features, rows),
        digest=lambda: hashlib.sha256(about.encode()).hexdigest(),
        recipe={"library": "table", "features": features, "hidden": []},
    )


def _standardised(features: list[list[str]], rows: Sequence[Mapping[str, float | str]]) -> Backbone:
    backbone = tabular.network(features, hidden=(), seed=0)
    x = np.stack([tabular.encode(row, backbone).numpy() for row in rows])
    next(m for m in backbone.modules() if isinstance(m, tabular.Standardise)).learn(x)
    return backbone


def hash_of(ground: Ground, candidate: Candidate, rows: np.ndarray, known: np.ndarray, asked: np.ndarray, *, related: bool) -> dict[str, object]:
    """Return what determines a fit's output on the rows ``asked``, for the ledger: contents, labels that it learns from, groups, settings."""
    domains = ground.domains
    target = [domains.digests[i] for i in domains.target] if related else []
    groups = None if domains.groups is None else domains.groups[rows].tolist()
    given = [[domains.digests[i] for i in rows], domains.y[rows].tolist(), groups, target, known.tolist(), domains.y[known].tolist()]
    given += [[domains.digests[i] for i in asked]]
    changed = {"settings": ground.settings.changed()} if ground.settings.changed() else {}
    return {"candidate": candidate.describe(), "rows": hashlib.sha256(json.dumps(given).encode()).hexdigest(), "seed": ground.seed, **changed}


def stratified_by(ground: Ground, rows: np.ndarray) -> np.ndarray:
    """Return what those labelled rows are stratified by."""
    domains = ground.domains
    return domains.y[rows] if domains.classes else strata(domains.y[rows], ())[0]

"""What is tried, in which order, and each fit's outputs, kept in the ledger: a killed run reads them back and ends with the same bytes.

The plan depends on the data, the options and the budget that was named, never on how fast the machine was.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from headstart.adaptation import SOURCE_ONLY, Labels
from headstart.adapting.ground import HALF, Ground, hash_of, stratified_by
from headstart.core import InputError
from headstart.evaluate import Split, folds, score
from headstart.learner import Candidate, Fitted, Target, learn, with_params
from headstart.methods import SIMPLE, Method, Probe, ProbeRegressor, space
from headstart.methods.method import Free
from headstart.methods.needs import unmet
from headstart.methods.relations import REGRESSIONS, RELATIONS, Mapped
from headstart.methods.relations.deep import DEEP, SourceOnly
from headstart.methods.relations.door import proba_of
from headstart.methods.relations.label_shift import LabelShift
from headstart.methods.relations.related import Related, weighs
from headstart.similarity.two_sample import one_thread
from headstart.train import OutOfTime

FOLDS, REPEATS = 5, 3  # in which labelled target cases test what was not trained on them; repeats as the budget allows
# by what a fit costs: those of the first row are always tried, of the second from a minute on, of the third from five
TIERS = (
    (0.0, ("scaled", "coral", "ot-linear", "subspace-alignment", "gfk", "tca", "nn-weights", "density-ratio", "em", "bbse", "jda")),
    (60.0, ("ot-entropic", "kliep", "kmm", "selection", "bda", "propagation", "jpda")),
    (300.0, ("ot", "ot-class")),
)
RAW = {"image": ("linear", "svm"), "text": ("linear", "svm"), "tabular": ("boosting", "svm", "forest")}  # models of raw inputs, beside heads on features
SAFEST = ("mcc", "dan", "deep-coral", "shot", "deep-jdot", "jan")  # of trained ones: fell on fewest of 26 pairs below source only (RESULTS.md)
PER_DEEP = 10.0  # seconds of budget for each, which is trained in one or two and weighed by validators, one of which trains again
PAIRED = frozenset({"ot", "ot-entropic", "ot-class", "kmm"})  # hold a number for each pair of cases
MOST_PAIRED = 5000  # cases of either domain that such a method is tried on
JOINED, TARGET_ONLY = "source + labelled target", "labelled target only"


@dataclass(frozen=True)
class Entry:
    """One way to go from source to target: ``sources`` are the domains whose cases train it, ``related`` says that it learns from target cases, too."""

    name: str
    candidate: Candidate
    sources: tuple[int, ...]
    related: bool

    @property
    def method(self) -> str:
        """Its method's name: of a relation-level one, the relation's."""
        method = self.candidate.method
        return method.relation if isinstance(method, Related) else method.name

    @property
    def head(self) -> str:
        """What is fitted on what, for people."""
        params, source = self.candidate.params, self.candidate.source
        what = ", ".join(str(v) for k, v in params.items() if isinstance(v, str) and k != "relation") or self.method
        return what if source is None else f"{what} on {source.name}"

    @property
    def level(self) -> str:
        """The level at which it transfers."""
        return self.candidate.method.level

    @property
    def learns(self) -> bool:
        """Whether labels of target cases change it; what moves a fitted model sees none."""
        return self.related and not isinstance(self.candidate.method, Free)


@dataclass(frozen=True)
class Tried:
    """A candidate with its output (n, c) or (n, 1) on held-out source cases and on the target's; ``None`` where it failed.

    ``folds`` are its outputs on labelled target cases that it was not trained on, fold by fold.
    """

    entry: Entry
    held: np.ndarray | None = None
    target: np.ndarray | None = None
    folds: tuple[np.ndarray, ...] = ()
    status: Literal["complete", "failed", "stopped"] = "complete"
    reason: str = ""

    @property
    def name(self) -> str:
        """The name of the candidate."""
        return self.entry.name

    @property
    def complete(self) -> bool:
        """Whether there are outputs."""
        return self.held is not None and self.target is not None


@dataclass
class Trials:
    """The candidates in the order in which they were tried; the reference, source only, is the first complete head by its score on held-out source cases."""

    ground: Ground
    splits: Sequence[Split] = ()
    tried: list[Tried] = field(default_factory=list)

    def run(self, entries: Iterable[Entry], *, deadline: float) -> None:
        """Try those in that order, until the deadline."""
        for entry in entries:
            try:
                self.tried.append(self._one(entry, deadline=deadline))
            except OutOfTime:
                self.ground.ran_out = True
                return
            self.ground.observer.advance(entry.name, 1)

    def complete(self) -> list[Tried]:
        """Return those that have outputs."""
        return [one for one in self.tried if one.complete]

    def refer(self) -> Tried:
        """Name the best of the heads on source cases alone "source only"; return it.

        The first one, ridge on final features, which relation-level methods put on theirs, unless another is better on held-out source cases beyond chance:
        then a gain is that of adapting, and not of another head.

        Raises
        ------
        InputError
            the budget ended before there was one.
        """
        heads = [one for one in self.complete() if not one.entry.related and len(one.entry.sources) == len(self.ground.domains.names) - 1]
        if not heads:
            why = next((one.reason for one in self.tried), f"The budget of {self.ground.clock.budget:g} s ended before source only was measured")
            raise InputError(f"{why.rstrip('.')}. Give more, such as --budget 5m, in another --out.")
        best = heads[0]
        for one in heads[1:]:
            best = one if _beats(self.ground, one, best) else best
        named = dataclasses.replace(best, entry=dataclasses.replace(best.entry, name=SOURCE_ONLY))
        self.tried = [named, *(one for one in self.tried if one is not best)]
        return named

    def fit(self, entry: Entry, *, known: np.ndarray | None = None, without: np.ndarray | None = None, deadline: float = math.inf) -> Fitted:
        """Return the entry fitted: on the training cases of its sources, and on the target's as far as it learns from them."""
        domains = self.ground.domains
        known = domains.known if known is None else known
        rows = self._rows(entry, known, without)
        target = Target(domains.target, known) if entry.related and entry.sources else None
        given = {"classes": domains.classes, "seed": self.ground.seed, "groups": domains.groups, "settings": self.ground.settings}
        if isinstance(entry.candidate.method, Method):
            return learn(entry.candidate, self.ground.views, rows, domains.y, **given, target=target, deadline=deadline)  # type: ignore[arg-type]
        with one_thread():
            return learn(entry.candidate, self.ground.views, rows, domains.y, **given, target=target)  # type: ignore[arg-type]

    def back(self, one: Tried, *, deadline: float) -> np.ndarray:
        """Return the classes (n,) of held-out source cases that the candidate gives once it is trained back: on the target's cases as it named them.

        Where it cannot be trained so, because it gave too few classes, all are called like the commonest one.
        """
        domains, entry, codes = self.ground.domains, one.entry, one.target.argmax(axis=1) if one.target is not None else np.zeros(0, dtype=np.intp)
        y = domains.y.copy()
        y[domains.target] = codes
        rows = self._rows(entry, domains.known, None)
        about = hash_of(self.ground, entry.candidate, rows, domains.known[:0], domains.held, related=True)

        def make() -> np.ndarray:
            if time.monotonic() > deadline:
                raise OutOfTime
            given = {"classes": domains.classes, "seed": self.ground.seed, "settings": self.ground.settings, "deadline": deadline}
            target = Target(rows) if entry.related else None
            with one_thread():
                fitted = learn(entry.candidate, self.ground.views, domains.target, y, **given, target=target)  # type: ignore[arg-type]
                return fitted.output(self.ground.views.array(entry.candidate.view)[domains.held])

        try:
            said: np.ndarray = self.ground.ledger.outcome({**about, "back": codes.tolist()}, make)[0].argmax(axis=1)
            return said
        except (InputError, np.linalg.LinAlgError):
            return np.full(len(domains.held), np.bincount(codes).argmax())

    def _rows(self, entry: Entry, known: np.ndarray, without: np.ndarray | None) -> np.ndarray:
        """The labelled rows that train it; those that share a group, or their content, with a row ``without`` are left out."""
        domains = self.ground.domains
        rows = domains.train[np.isin(domains.domain[domains.train], entry.sources)] if entry.sources else known
        if without is not None and domains.groups is not None:
            rows = rows[~np.isin(domains.groups[rows], domains.groups[without])]
        return rows

    def _one(self, entry: Entry, *, deadline: float) -> Tried:
        domains = self.ground.domains
        asked = np.concatenate([domains.held, domains.target])
        try:
            output = self._output(entry, domains.known, asked, deadline=deadline)
            tested = tuple(self._on_fold(entry, split, output, deadline=deadline) for split in self.splits)
        except (InputError, np.linalg.LinAlgError) as error:
            return Tried(entry, status="failed", reason=" ".join(str(error).split()))
        return Tried(entry, output[: len(domains.held)], output[len(domains.held) :], tested)

    def _on_fold(self, entry: Entry, split: Split, output: np.ndarray, *, deadline: float) -> np.ndarray:
        known, test = split
        domains = self.ground.domains
        if not entry.learns and (domains.groups is None or not np.isin(domains.groups[self._rows(entry, known, None)], domains.groups[test]).any()):
            place = {int(row): i for i, row in enumerate(domains.target)}
            return output[len(domains.held) :][[place[int(row)] for row in test]]
        return self._output(entry, known, test, without=test, deadline=deadline)

    def _output(self, entry: Entry, known: np.ndarray, asked: np.ndarray, *, deadline: float, without: np.ndarray | None = None) -> np.ndarray:
        learned = known if entry.learns else known[:0]
        key = hash_of(self.ground, entry.candidate, self._rows(entry, known, without), learned, asked, related=entry.related)

        def make() -> np.ndarray:
            if time.monotonic() > deadline:
                raise OutOfTime
            if entry.candidate.beside.copies and not self.splits:
                # why now: reverse validation trains it back on these, and if time is short it is this candidate that goes, not that validator
                self.ground.views.of_rows(entry.candidate.beside, self._rows(entry, known, without))
            fitted = self.fit(entry, known=known, without=without, deadline=deadline)
            x = self.ground.views.array(entry.candidate.view)
            is_source = self.ground.domains.domain[asked] < len(self.ground.domains.names) - 1
            with one_thread():
                parts = (of_source(fitted, x[asked[is_source]]), fitted.output(x[asked[~is_source]])) if is_source.any() else (fitted.output(x[asked]),)
            return np.concatenate(parts)

        output, seconds = self.ground.ledger.outcome(key, make)
        self.ground.seconds[entry.name] = self.ground.seconds.get(entry.name, 0.0) + seconds
        return output


def of_source(fitted: Fitted, x: np.ndarray) -> np.ndarray:
    """Return the output (n, c) or (n, 1) for source cases x of the candidate's view, which a relation-level method takes for target cases otherwise."""
    model = fitted.model
    if isinstance(model, Mapped):
        seen = model.adapt_source(x)
        return proba_of(model.head_, seen, model.classes_) if fitted.classes else np.asarray(model.head_.predict(seen), dtype=np.float64).reshape(-1, 1)
    if isinstance(model, LabelShift):
        return proba_of(model.head_, x, model.classes_)
    return fitted.output(x)


def _beats(ground: Ground, one: Tried, other: Tried) -> bool:
    """Whether it is better on held-out source cases, one-sided at 5 %, by the mean difference over cases; classes weigh alike."""
    if one.held is None or other.held is None:
        return False
    y = ground.domains.y[ground.domains.held]
    if ground.domains.classes:
        each = (one.held.argmax(axis=1) == y).astype(float) - (other.held.argmax(axis=1) == y)
        weights = 1.0 / np.bincount(y)[y]
    else:
        each, weights = np.square(other.held[:, 0] - y) - np.square(one.held[:, 0] - y), np.ones(len(y))
    mean = float(np.average(each, weights=weights))
    error = float(np.sqrt(np.sum((weights / weights.sum()) ** 2 * (each - mean) ** 2)))
    return mean > HALF * error


def held_score(ground: Ground, one: Tried) -> float:
    """Return the score on held-out cases of the sources that it was trained on, 0..1."""
    domains = ground.domains
    own = np.isin(domains.domain[domains.held], one.entry.sources) if one.entry.sources else np.ones(len(domains.held), dtype=bool)
    return score(domains.y[domains.held][own], one.held[own], classes=domains.classes) if one.held is not None else -math.inf


def target_splits(ground: Ground) -> list[Split]:
    """Return (known rows, tested rows) of the labelled target cases, groups whole; a class of one labelled case is never tested.

    Raises
    ------
    InputError
        fewer than ten labelled cases, or too few of two classes, to test anything.
    """
    domains = ground.domains
    rows, codes = domains.known, stratified_by(ground, domains.known)
    often = np.isin(codes, np.flatnonzero(np.bincount(codes.astype(np.intp)) > 1))
    if len(rows) < 10 or len(np.unique(codes[often])) < 2:
        each = ", ".join(f"{label} {n}" for label, n in zip(domains.task.labels, np.bincount(codes.astype(np.intp)), strict=False) if n)
        what = f"{domains.names[-1]} has {len(rows)} labelled case(s)" + (f" ({each})" if each else "")
        raise InputError(f"{what}; a test takes at least 10, and 2 of each of two classes. Label more, or leave --target-labels out.")
    tested, always = rows[often], rows[~often]
    groups = None if domains.groups is None else domains.groups[tested]
    repeats = ground.count(per=100.0, low=1, high=REPEATS)
    pairs = folds([str(c) for c in codes[often]], groups=groups, k=FOLDS, repeats=repeats, seed=ground.seed)
    return [(np.sort(np.concatenate([tested[a], always])), tested[b]) for a, b in pairs]


def source_heads(ground: Ground, network: str) -> list[Entry]:
    """Return the heads that learn from source cases alone, as hard tuned as what they are compared with: heads, depths, and simple models of raw inputs."""
    every = tuple(range(len(ground.domains.names) - 1))
    kind = _kind(ground)
    entries = []
    if network:
        source = ground.networks[network]
        probe = Probe() if ground.domains.classes else ProbeRegressor()
        settings = [(head, 0, 1) for head in space(probe)["head"].choices]
        settings += [("ridge", back, span) for back, span in ((1, 1), (0, 2)) if len(source.levels) > back + span - 1]
        for head, back, span in settings:
            where = "" if (back, span) == (0, 1) else f", {span} stages" if span > 1 else f", {back} stage earlier"
            entries.append(Entry(f"{head}{where}", Candidate(dataclasses.replace(probe, head=head, back=back, span=span), source), every, related=False))
    modality = ground.domains.task.modality
    simple = SIMPLE[modality](kind=kind)
    for model in RAW[modality]:
        entries.append(Entry(f"{model} on raw inputs", Candidate(dataclasses.replace(simple, model=model)), every, related=False))
    return entries


def closed(ground: Ground, reference: Tried, network: str, labels: Labels) -> list[Entry]:
    """Return closed-form relation-level methods on the reference's features, all sources pooled, then each source alone."""
    if not network:
        return []
    every, source = reference.entry.sources, ground.networks[network]
    head = reference.entry.candidate.method
    depth = {"back": head.back, "span": head.span} if isinstance(head, Probe | ProbeRegressor) else {}
    kind = _kind(ground)

    def related(name: str, sources: tuple[int, ...], *, called: str = "", head: str = "ridge") -> Entry:
        return Entry(called or name, Candidate(with_params(Related(name, head, kind=kind), depth if head == "ridge" else {}), source), sources, related=True)

    table = RELATIONS if ground.domains.classes else REGRESSIONS
    names = [name for least, tier in TIERS if ground.clock.budget >= least for name in tier if name in table]
    most = max(len(ground.domains.train), len(ground.domains.target))
    if most > MOST_PAIRED and (left := [name for name in names if name in PAIRED]):
        ground.notes.append(f"{', '.join(left)}: not tried, for they hold a number for each pair of cases, and there are {most} in one domain.")
        names = [name for name in names if name not in PAIRED]
    entries = []
    if labels == "some":
        names = ["tradaboost", "easyadapt", *names]
        joined = dataclasses.replace(reference.entry, name=JOINED, related=True)
        probe = with_params(Probe() if ground.domains.classes else ProbeRegressor(), depth)
        entries += [joined, Entry(TARGET_ONLY, Candidate(probe, source), (), related=True)]
    entries += [related(name, every) for name in names]
    if ground.domains.task.modality == "tabular" and not ground.domains.classes:  # why not of classes: trees there are worth more than adapting
        entries += [related(name, every, called=f"{name}, boosting", head="boosting") for name in names if weighs(name, kind=kind)]
    for k, domain in enumerate(ground.domains.names[:-1]) if len(every) > 1 else ():
        entries.append(dataclasses.replace(reference.entry, name=f"{SOURCE_ONLY}, {domain} alone", sources=(k,)))
        entries.append(related("coral", (k,), called=f"coral, {domain} alone"))
    return entries


def deep(ground: Ground, reference: Tried, network: str, labels: Labels) -> list[Entry]:
    """Return methods that train in the loop, as many as the budget pays for, after the same training without the target: those most often safe come first."""
    if not network:
        return []
    source, every = ground.networks[network], reference.entry.sources
    fits = 1 if labels == "none" else 1 + FOLDS
    able = [kind for name, kind in DEEP.items() if not unmet(kind, source, classes=ground.domains.classes, unlabelled=True)]
    # why copies last: to make them takes as long as the network does, and a budget that ends there costs no other method
    able.sort(key=lambda kind: SAFEST.index(kind.name) if kind.name in SAFEST else len(SAFEST) + ("copies" in kind.needs))
    chosen = able[: ground.count(per=PER_DEEP * fits, low=0, high=len(able))]
    if not chosen:
        return []
    plain = Entry("trained head", Candidate(SourceOnly(), source), every, related=False)
    return [plain, *(Entry(kind.name, Candidate(kind(), source), every, related=True) for kind in chosen)]


def _kind(ground: Ground) -> Literal["classification", "regression"]:
    return "classification" if ground.domains.classes else "regression"

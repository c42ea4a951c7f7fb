"""A candidate (a method with its settings, on a source) and what it becomes when fitted: the same few lines for every method.

Whether a method is closed-form or looped is decided here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from headstart.core import InputError, Net, Source
from headstart.keeping import Settings
from headstart.methods.method import Arm, Closed, Free, Method, View, space
from headstart.methods.needs import require
from headstart.methods.relations.deep import Deep, SourceFree
from headstart.train import PLAIN, fit, predict_logits
from headstart.views import Views

BORROWS = frozenset({"source.data", "source.labels"})
PLACE = frozenset({"back", "span"})  # knobs that do nothing but choose the view


@dataclass(frozen=True)
class Candidate:
    """A method with its settings, on a source or on none; ``settings`` of its training, where they are not those of all."""

    method: Closed | Method | Free
    source: Source | None = None
    settings: Settings | None = None

    @property
    def arm(self) -> Arm:
        """The arm it belongs to."""
        return self.method.arm

    @property
    def view(self) -> View:
        """The view it learns from."""
        return self.method.view(self.source)

    @property
    def served(self) -> View:
        """The view it predicts from."""
        return self.method.served(self.source)

    @property
    def beside(self) -> View:
        """The view of a second domain that it learns from, where there is one."""
        return self.method.beside(self.source) if isinstance(self.method, Method) else self.view

    @property
    def params(self) -> dict[str, Any]:
        """Its hyperparameters by name, and the settings of its training that are its own."""
        return {name: getattr(self.method, name) for name in space(self.method)} | ((self.settings and self.settings.changed()) or {})

    def describe(self) -> dict[str, Any]:
        """Return what tells it from every other candidate, as plain values: two that learn alike from the same view are one."""
        weights = None if self.source is None else [self.source.name, self.source.weights_sha256]
        view = {name: value for name, value in dataclasses.asdict(self.view).items() if name != "copies" or value}
        params = {name: value for name, value in self.params.items() if name not in PLACE}
        plain = {"method": self.method.name, "source": weights, "params": params, "view": view}
        if self.beside.copies != self.view.copies:
            plain["beside"] = list(self.beside.copies)
        if self.source is not None and self.method.needs & BORROWS:
            plain["lent"] = self.source.data_sha256
        if self.settings is not None:
            plain["settings"] = dataclasses.asdict(self.settings)
        if isinstance(self.method, Free):
            plain["start"] = self.method.start.sha256
        teacher = self.method.teacher if isinstance(self.method, Method) else None
        return plain if teacher is None else {**plain, "teacher": Candidate(*teacher).describe()}


@dataclass(frozen=True)
class Fitted:
    """A fitted candidate: a scikit-learn model or a net; ``classes`` is the number of classes, 0 for regression."""

    candidate: Candidate
    model: Any
    classes: int

    def output(self, x: np.ndarray) -> np.ndarray:
        """Return class probabilities (n, c) before temperature scaling, or numbers (n, 1), for rows of the view that the candidate predicts from."""
        return outputs(self.model, x, classes=self.classes)


@dataclass(frozen=True)
class Target:
    """The domain to move to, where it is not the one that labels come from: all its ``rows``, and those of them whose label is ``known``."""

    rows: np.ndarray
    known: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.intp))

    def labels(self, y: np.ndarray) -> list[Any] | None:
        """Return the targets of its rows, ``None`` for each that is not known; ``None`` where none is.

        >>> Target(np.array([4, 5]), np.array([5])).labels(np.arange(10))
        [None, 5]
        """
        if not len(self.known):
            return None
        known = set(self.known.tolist())
        return [y[row].item() if row in known else None for row in self.rows.tolist()]


def learn(
    candidate: Candidate,
    views: Views,
    rows: np.ndarray,
    y: np.ndarray,
    *,
    classes: int,
    seed: int,
    groups: np.ndarray | None = None,
    target: Target | None = None,
    deadline: float = math.inf,
    progress: Callable[[float], None] | None = None,
    settings: Settings = PLAIN,
) -> Fitted:
    """Fit the candidate on those rows of the views; ``y`` and ``groups`` (n,) are of all rows; ``settings`` are those of
    what is trained by the loop. With a ``target`` those rows are another domain's, which the model is to be moved away from.

    Raises
    ------
    OutOfTime
        the deadline passed.
    InputError
        the method needs what the source or the target lacks; the loss is no longer a number.
    """
    method = candidate.method
    if isinstance(method, Free):
        x = np.zeros((0, 1)) if target is None else views.array(candidate.view)[target.rows]
        return Fitted(candidate, method.moved(x, seed=seed, deadline=deadline), classes)
    require(method, _source(candidate), classes=classes, unlabelled=target is not None)
    whole = views.array(candidate.view)
    estimator: Any = method.estimator(seed=seed) if isinstance(method, Closed) else None
    takes = {name for name in ("widths", "X_target", "X_source") if isinstance(method, Closed) and has_fit_parameter(estimator, name)}
    if target is not None and "X_target" not in takes:
        rows = np.concatenate([rows, target.known])
    x = whole[rows]
    if isinstance(method, Closed):
        inner: dict[str, Any] = {} if groups is None or not (word := word_for_groups(estimator)) else {word: groups[rows]}
        inner |= {"widths": views.widths(candidate.view)} if "widths" in takes else {}
        if target is not None and "X_target" in takes:
            inner |= {"X_target": whole[target.rows], "y_target": target.labels(y)}
        if "X_source" in takes:
            inner["X_source"], inner["y_source"] = views.lent(candidate.view)
        return Fitted(candidate, estimator.fit(x, y[rows], **inner), classes)
    if candidate.source is not None and candidate.source.modality == "image":
        # why: the engine lays weights out so in place, and another layout sums in another order; whether it ran or all was stored must not be seen in the bits
        candidate.source.backbone.to(memory_format=torch.channels_last)
    targets, centre, spread = _standardised(y[rows], classes)
    own, units = dataclasses.replace(settings, **method.settings), None if groups is None else groups[rows]
    taught = own.split(targets, torch.Generator().manual_seed(seed), units)[0]  # why: what has seen the cases held in would stop the training by what it knows
    probed = method.starts_from_probe and candidate.source is not None
    features = views.array(_final(_source(candidate)))[rows[taught]] if probed else None
    if isinstance(method, SourceFree):
        first = Candidate(method.start(_source(candidate)), candidate.source)
        net = method.continued(learn(first, views, rows, y, classes=classes, seed=seed, groups=groups, deadline=deadline, settings=settings).model)
    else:
        with torch.random.fork_rng(devices=[]):  # why: a layer that draws its first weights takes them from torch's own generator
            torch.default_generator.manual_seed(seed)
            given: dict[str, Any] = {"features": features, "y": targets[taught], "classes": classes, "seed": seed} | _features_beside(candidate, views, target)
            net = method.build(_source(candidate), **given)
    if method.teacher is not None:
        teacher = learn(Candidate(*method.teacher), views, rows[taught], y, classes=classes, seed=seed, groups=groups, deadline=deadline, settings=settings)
        said = teacher.output(views.array(teacher.candidate.served)[rows])
        method.heed(net, said if classes else (said - centre) / spread)
    # why the engine's: where the user's data were found to bear bfloat16 features, training on them may round alike, and elsewhere it may not
    reduced = candidate.source is not None and views.engine(candidate.source).endswith("-bf16")
    seen: dict[str, Any] = {} if target is None else dict(zip(("unlabelled", "copies"), _beside(candidate, views, target), strict=True))
    x, targets = _each_copy(x, targets, candidate.view, own)
    net, _ = fit(method, net, x, targets, seed=seed, **seen, reduced=reduced, deadline=deadline, progress=progress, settings=own, units=units)
    return Fitted(candidate, net if classes else _rescaled(net, centre, spread), classes)


def views_of(candidate: Candidate) -> list[View]:
    """Return the views that the candidate learns and predicts from: all that :func:`learn` and :meth:`Fitted.output` ask for.

    >>> from headstart.methods import Probe
    >>> views_of(Candidate(Probe(), Source("s", stages=("a", "b"))))
    [View(kind='pooled', source='s', cuts=(2,), side=0, copies=())]
    """
    found, method, source = [candidate.view, candidate.served], candidate.method, candidate.source
    if isinstance(method, Method) and method.starts_from_probe and source is not None:
        found.append(_final(source))
    if isinstance(method, Method) and method.teacher is not None:
        found += views_of(Candidate(*method.teacher))
    return list(dict.fromkeys(found))


def word_for_groups(estimator: Any) -> str:
    """Return the name under which an estimator's ``fit`` takes groups, itself or as the last step of a pipeline; "" where it takes none.

    >>> from sklearn.pipeline import make_pipeline
    >>> from headstart.methods.features import KNN, LogisticPath
    >>> word_for_groups(LogisticPath()), word_for_groups(make_pipeline(LogisticPath())), word_for_groups(KNN())
    ('groups', 'logisticpath__groups', '')
    """
    step, last = estimator.steps[-1] if isinstance(estimator, Pipeline) else ("", estimator)
    return "" if not has_fit_parameter(last, "groups") else f"{step}__groups" if step else "groups"


def moved(method: SourceFree, net: Net, x: np.ndarray, *, seed: int, settings: Settings = PLAIN, deadline: float = math.inf) -> Net:
    """Return a copy of a fitted net that ``method`` moved to unlabelled activations x (m, ...) at the net's cut; no case of the source is needed.

    The net is that of a method of the same ``depth``, such as ``SourceOnly``; of nets of TENT, ``OwnStatistics``.
    """
    nobody_reads = np.zeros(len(x), dtype=np.int64)
    return fit(method, method.continued(net), x, nobody_reads, seed=seed, unlabelled=x, settings=settings, deadline=deadline)[0]


def outputs(model: Any, x: np.ndarray, *, classes: int) -> np.ndarray:
    """Return class probabilities (n, c) of a scikit-learn classifier on class codes, or of a net; numbers (n, 1) where ``classes`` is 0."""
    if isinstance(model, Net):
        raw = predict_logits(model, x)
        return np.asarray(softmax(raw, axis=1)) if classes else raw
    if not classes:
        return np.asarray(model.predict(x), dtype=np.float64).reshape(-1, 1)
    out = np.zeros((len(x), classes))
    out[:, model.classes_] = model.predict_proba(x)
    return out


def with_params(method: Closed | Method, params: Mapping[str, Any]) -> Closed | Method:
    """Return the method with other hyperparameters."""
    return type(method)(**{f.name: getattr(method, f.name) for f in dataclasses.fields(method)} | dict(params))  # type: ignore[arg-type]


def _each_copy(x: np.ndarray, y: np.ndarray, view: View, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Return activations (n, 1 + k, ...) and targets (n,) with each copy a case of its own; without copies as they are."""
    if not view.copies:
        return x, y
    if settings.held_in:
        raise InputError("Copies of a case would lie among those held in, and stop the training for what it knows. Leave held_in out.")
    return x.reshape(-1, *x.shape[2:]), np.repeat(y, x.shape[1])


def _beside(candidate: Candidate, views: Views, target: Target) -> tuple[np.ndarray, np.ndarray | None]:
    """Return activations (m, ...) of the target's cases, and (m, k, ...) of their copies where the method asks for some."""
    view = candidate.beside
    seen = views.of_rows(view, target.rows)
    return (seen[:, 0], seen[:, 1:]) if view.copies else (seen, None)


def _features_beside(candidate: Candidate, views: Views, target: Target | None) -> dict[str, Any]:
    """Return the final features of the target's cases for a method that is built over both domains; nothing for others."""
    if target is None or not isinstance(candidate.method, Deep):
        return {}
    return {"beside": views.array(_final(_source(candidate)))[target.rows]}


def _final(source: Source) -> View:
    return View("pooled", source.name, (len(source.stages),))


def _source(candidate: Candidate) -> Source:
    return candidate.source if candidate.source is not None else Source("none")


def _standardised(y: np.ndarray, classes: int) -> tuple[np.ndarray, float, float]:
    """Numbers are trained on with mean 0 and deviation 1, whatever their unit, so that one learning rate serves all."""
    if classes:
        return y, 0.0, 1.0
    centre, spread = float(y.mean()), float(y.std()) or 1.0
    return (y - centre) / spread, centre, spread


def _rescaled(net: Net, centre: float, spread: float) -> Net:
    """Fold the target's unit into the last linear layer."""
    last = [m for m in net.head.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(spread)
        last.bias.mul_(spread).add_(centre)
    return net

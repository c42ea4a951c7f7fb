"""Looking at one source from four sides: its measures, its curve over stages, what its architecture meets, and how alike two sources see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from headstart.activations.costs import known
from headstart.assessment import AssessedSource, CkaMap, Gain, NearestClass, Promise, StageScore
from headstart.core import InputError, Inspection, Source, Task
from headstart.methods.features.door import one_thread
from headstart.methods.method import View
from headstart.result import Score
from headstart.similarity import MEASURES
from headstart.similarity.architecture import ArchitectureFit, architecture_fit
from headstart.similarity.cka import cka_map
from headstart.similarity.comparison import compare
from headstart.similarity.data import drawn, paired
from headstart.similarity.feature import credit_left_out
from headstart.similarity.label_names import Embed, class_names, embedder, label_meaning, nearest
from headstart.similarity.measure import Evidence, Kind
from headstart.similarity.probes import stage_curve
from headstart.similarity.task import class_probabilities
from headstart.views import Views

if TYPE_CHECKING:
    from headstart.modality.image import Frame

APART = "domain classifier"  # the measure that sources are ordered by where nothing is labelled
CKA_CASES = 500  # the estimate is unbiased; with 500 its error is about .01
HALF = 1.645  # standard errors to either side of a 90 % interval


@dataclass(frozen=True)
class Sight:
    """What was seen of a source. ``x`` (n, dim) are its final features of the task's inputs, ``activations`` (n, d_k) those of each stage, pooled."""

    x: np.ndarray
    activations: Mapping[str, np.ndarray]
    scores: tuple[Score, ...]
    stages: tuple[StageScore, ...]
    nearest: tuple[NearestClass, ...]
    fit: ArchitectureFit
    data: str


@dataclass
class Onlooker:
    """Looks at sources whose activations are stored, one after another or several at once.

    Parameters
    ----------
    views : of the task's inputs
    y : (n,) class codes or numbers of the task; ``None``: nothing is labelled
    embed : what puts names of classes side by side by meaning
    """

    task: Task
    views: Views
    y: np.ndarray | None
    seed: int
    embed: Embed | None = None

    def look(self, source: Source, other: tuple[Task, Inspection, Views] | None = None) -> Sight:
        """Return what all measures say of a source; ``other`` are data of a neighbouring domain, and their views by the same source."""
        with one_thread():  # why: sums of several threads differ in their last bits from one run to the next
            return self._look(source, other)

    @cached_property
    def frames(self) -> tuple[Frame, ...] | None:
        """Sizes and colours of the images, which are the same for every source."""
        if self.task.modality != "image":
            return None
        from headstart.modality.image import frames

        return frames(self.task.target.x)

    def _look(self, source: Source, other: tuple[Task, Inspection, Views] | None) -> Sight:
        task, y, seed = self.task, self.y, self.seed
        activations = {stage: np.asarray(self.views.array(View("pooled", source.name, (k,)))) for k, stage in enumerate(source.stages, 1)}
        x = activations[source.stages[-1]]
        evidence = _of_model(source, task, x, y, seed=seed)
        scores = [measure(evidence) for measure in MEASURES.values() if measure.view in ("feature", "task")]
        kin: tuple[NearestClass, ...] = ()
        if self.embed is not None and evidence.source_labels:
            scores.append(label_meaning(self.embed)(evidence))
            kin = tuple(NearestClass(one.label, one.classes) for one in nearest(evidence.labels, evidence.source_labels, self.embed))
        words = ""
        if other is not None:
            xs = np.asarray(other[2].array(View("pooled", source.name, (len(source.stages),))))
            beside = _of_data(task, x, y, other[0], xs, seed=seed)
            scores += [measure(beside) for measure in MEASURES.values() if measure.view == "data" or "ys" in measure.needs]
            made = beside.shared(drawn), beside.shared(paired)
            named = {"labels": beside.labels, "source_labels": beside.source_labels}
            words = compare(x, xs, y=beside.y, ys=beside.ys, **named, seed=seed, pools=made).in_words()
        curve = () if y is None else _curve(activations, y, _kind(task), evidence)
        errors = {s.stage: (s.score.value, standard_error(s.score)) for s in curve}
        cost = known(self.views.store.root).get(source.weights_sha256)
        fit = architecture_fit(source, task.target.x, n=len(x), curve=errors or None, seconds_each=cost, seen=self.frames)
        found = [*scores, *fit.scores()]
        return Sight(x, activations, tuple(s for s in found if s is not None and math.isfinite(s.value)), curve, kin, fit, words)


def naming(task: Task) -> Embed | None:
    """Return what compares names of classes by meaning: the packaged sentence encoder, where it is installed and the task's classes have names."""
    if not task.labels:
        return None
    try:
        return embedder()
    except InputError:
        return None


def _curve(activations: Mapping[str, np.ndarray], y: np.ndarray, kind: Kind, final: Evidence) -> tuple[StageScore, ...]:
    """Return the score of each stage; that of the last is at hand."""
    known = {list(activations)[-1]: final.shared(credit_left_out)}
    return tuple(StageScore(stage, score) for stage, score in stage_curve(activations, y, kind, known=known).items())


def features_of(other: tuple[Task, Inspection], source: Source, views: Views) -> Views:
    """Return the views of the other domain's inputs, by the same source on the same engine."""
    task, inspection = other
    return Views(task.target.x, inspection.digests, {source.name: source}, views.store, task.modality, engine=lambda one: views.engine(source))


def agreement(sights: Mapping[str, Sight]) -> CkaMap | None:
    """Return how alike the sources' final features see the task's inputs; ``None`` for a single source."""
    if len(sights) < 2:
        return None
    finals = {name: sight.x[:CKA_CASES] for name, sight in sights.items()}
    names = tuple(finals)
    with one_thread():
        return CkaMap("", "", names, names, _rounded(cka_map(finals, finals)))


def layers(a: tuple[str, Sight], b: tuple[str, Sight]) -> CkaMap:
    """Return how alike the stages of two sources see the task's inputs."""
    rows, columns = ({stage: values[:CKA_CASES] for stage, values in sight.activations.items()} for _, sight in (a, b))
    with one_thread():
        return CkaMap(a[0], b[0], tuple(rows), tuple(columns), _rounded(cka_map(rows, columns)))


def standard_error(score: Score) -> float:
    """Return the standard error that a score's 90 % interval stands for; 0 where it has none."""
    return 0.0 if score.interval is None else (score.interval[1] - score.interval[0]) / (2 * HALF)


def assessed(
    source: Source, sight: Sight, *, why: str, frozen: Score | None = None, gain: Gain | None = None, fine_tuned: Promise | None = None
) -> AssessedSource:
    """Return what was seen of a source as a finding, with what was measured and foretold where there are labels."""
    return AssessedSource(
        name=source.name,
        parameters=source.parameters,
        dim=source.dim,
        licence=source.licence,
        trained_on=source.trained_on,
        frozen=frozen,
        gain=gain,
        fine_tuned=fine_tuned,
        stages=sight.stages,
        stages_kept=sight.fit.stages_kept,
        scores=sight.scores,
        nearest=sight.nearest,
        facts=sight.fit.in_words(),
        data=sight.data,
        why=why,
    )


def unlike(sight: Sight) -> float:
    """Return how well a classifier tells the task's inputs from the other data's by this source's features, 0.5..1; 1 where there are no other data."""
    return next((score.value for score in sight.scores if score.name == APART), 1.0)


def _of_model(source: Source, task: Task, x: np.ndarray, y: np.ndarray | None, *, seed: int) -> Evidence:
    names = class_names(source) if source.modality == "image" else source.labels
    theta = None
    if source.backbone.classifier is not None and y is not None:
        theta = class_probabilities(source.backbone, x)
        names = names if len(names) == theta.shape[1] else ()
    return Evidence(x=x, y=y, kind=_kind(task), theta=theta, labels=task.labels, source_labels=names, seed=seed)


def _of_data(task: Task, x: np.ndarray, y: np.ndarray | None, data: Task, xs: np.ndarray, *, seed: int) -> Evidence:
    ys = None
    if y is not None and data.target.y is not None:
        ys = np.asarray(data.codes) if data.labels else np.asarray(data.target.y, dtype=np.float64)
    return Evidence(x=x, y=y, kind=_kind(task), xs=xs, ys=ys, labels=task.labels, source_labels=data.labels, seed=seed)


def _kind(task: Task) -> Kind:
    return "regression" if task.kind == "regression" else "classification"


def _rounded(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(float(v), 4) for v in row) for row in values)

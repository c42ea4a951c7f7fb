"""A finished run as the origin of an adaptation: the model that it shipped, and what it wrote down of cases that are no longer there."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.feature_extraction import DictVectorizer
from sklearn.pipeline import Pipeline
from torch import nn

from headstart.adaptation import Adaptation, Labels, Side, Warned
from headstart.adapting.domains import LEAST, Domains, Read, check_given, groups_of, listed, target_labels
from headstart.adapting.moving import bottleneck, linear, opened
from headstart.core import InputError, Inspection, Net, Source, Task
from headstart.evaluate import strata
from headstart.evidence import THINGS, joined_groups
from headstart.export import Predictor, load
from headstart.methods.method import Start, View
from headstart.methods.model.tuned import is_norm
from headstart.methods.relations.deep.adabn import BATCHNORM
from headstart.methods.relations.deep.bottleneck import Bottleneck
from headstart.modality import tabular
from headstart.result import Result, Score

Holds = Callable[[nn.Module], bool]


@dataclass(frozen=True)
class Origin:
    """A run without its cases.

    Parameters
    ----------
    name : of its data
    kind : "classification" or "regression"
    predictor : the model that it shipped
    sha256 : of that model
    side : how many cases it had, of which classes, and how many were held out
    score : of the model on those
    confusion : ``[i][j]`` held-out cases of class j that the model called i; empty where the run has not told
    """

    name: str
    kind: Literal["classification", "regression"]
    predictor: Predictor
    sha256: str
    side: Side
    score: Score | None
    confusion: tuple[tuple[int, ...], ...] = ()

    @property
    def start(self) -> Start:
        """The shipped model."""
        return Start(self.predictor.model, self.predictor.view, self.sha256)

    @property
    def source(self) -> Source | None:
        """The network whose frozen stages the model stands on, with the cut from which its last stages may learn; ``None``: it learned from raw inputs."""
        source, cut = self.predictor.source, self._cut()
        if source is None or cut is None:
            return source
        backbone, weights = source.backbone, source.weights_sha256
        return dataclasses.replace(source, tune_cuts=(cut,), opener=lambda: backbone, digest=lambda: weights)

    def net(self, holds: Holds | None = None) -> Start | None:
        """Return the shipped model as a net that can go on learning; ``None`` where it is none.

        A net goes on from its own cut. A linear head on final features, and a net of no more than that, goes on with the last stages of its network: those
        above the cut nearest to the output that has a norm above, or, without norms, anything that can learn.

        Parameters
        ----------
        holds : what must be among the stages that learn, such as a norm. ``None``: whatever can learn
        """
        net, base = self._net(), self._base()
        if net is None:
            return None
        if _has(net.body, holds) or (holds is None and isinstance(bottleneck(net), Bottleneck)):
            return Start(net, self.predictor.view, self.sha256)
        source, cut = self.predictor.source, self._cut()
        if source is None or cut is None:
            return None
        between = copy.deepcopy(source.backbone.between(cut, base))
        if not _has(between, holds):
            return None
        body = nn.Sequential(OrderedDict([*between.named_children(), *net.body.named_children()]))
        if source.modality == "image":
            body.to(memory_format=torch.channels_last)  # why: as learner.learn does, so that what ran before is not seen in the bits
        return Start(Net(body, net.head).eval(), View("raw", source.name, (cut,)), self.sha256)

    def _net(self) -> Net | None:
        model, view = self.predictor.model, self.predictor.view
        if isinstance(model, Net):
            return opened(model)
        layer = linear(model, len(self.predictor.labels)) if view.kind == "pooled" and view.cuts == (self._base(),) else None
        return None if layer is None or self.predictor.source is None else opened(Net(nn.Sequential(), layer))

    def _base(self) -> int:
        """The cut behind which the network ends."""
        return 0 if self.predictor.source is None else len(self.predictor.source.stages)

    def _cut(self) -> int | None:
        """The cut from which the last stages may learn where the model looks at final features: nearest to the output, with a norm above."""
        source, view, base = self.predictor.source, self.predictor.view, self._base()
        if source is None or view.kind != "pooled" or view.cuts != (base,) or base < 2:
            return None
        cuts, backbone = range(base - 1, 0, -1), source.backbone
        return next((cut for holds in (is_norm, None) for cut in cuts if _has(backbone.between(cut, base), holds)), None)


def is_batchnorm(module: nn.Module) -> bool:
    """Whether a module keeps statistics of its batches."""
    return isinstance(module, BATCHNORM)


def origin_of(given: Any) -> Origin | None:
    """Return the run that was given as a source, by its folder or as what ``transfer`` or ``adapt`` returned; ``None`` where it is a task.

    Raises
    ------
    InputError
        the folder holds no finished run; the result holds no model.
    """
    if isinstance(given, Task):
        return None
    found = load(given) if isinstance(given, str | Path) else given
    if not isinstance(found, Result | Adaptation):
        raise InputError(f"{type(found).__name__} is no source to adapt from. Give a labelled task, or the folder of a finished run.")
    if not isinstance(found.model, Predictor):
        raise InputError("This result holds no model to adapt. Read the whole folder of the run: headstart.load(folder).")
    sha256 = _of_files(Path(given) / "model") if isinstance(given, str | Path) else _of_model(found.model)
    kind: Literal["classification", "regression"] = "classification" if found.labels else "regression"
    if isinstance(found, Adaptation):
        counts: dict[str, int] = {}
        for side in found.sources:
            for stratum, n in side.strata.items():
                counts[stratum] = counts.get(stratum, 0) + n
        shipped = found.candidate(found.shipped)
        n, held = (sum(getattr(side, key) for side in found.sources) for key in ("n", "held_out"))
        side = _recorded(" + ".join(one.name for one in found.sources), n, held, counts, "adapted to " + found.target.name)
        return Origin(side.name, kind, found.model, sha256, side, None if shipped is None else shipped.source_score)
    arm, table = found.arm(found.shipped), found.confusion
    confusion = () if table is None or not all(sum(row) for row in table.counts) else tuple(zip(*table.counts, strict=True))
    side = _recorded(found.task, found.found.n, found.found.n_test, found.found.strata, "of a transfer")
    return Origin(found.task, kind, found.model, sha256, side, None if arm is None else arm.test, confusion)


def target_alone(origin: Origin, target: Read, *, labels: Labels) -> Domains:
    """Return the target as the only domain that has cases; classes are those of the run.

    Raises
    ------
    InputError
        fewer than ten cases; labels of classes that the run lacks, or none, where some were promised.
    """
    task, inspection = target
    name = task.target.name if task.target.name != origin.name else f"{task.target.name} (2)"
    if len(task.target) < LEAST:
        raise InputError(f"{name} has {len(task.target)} {THINGS[task.modality]}; a domain needs at least {LEAST}. Add some, or predict without adapting.")
    n, predictor = len(task.target), origin.predictor
    own = dataclasses.replace(task, kind=origin.kind, labels=predictor.labels, columns=dict(predictor.columns))
    rows = np.arange(n)
    given = target_labels(own, task, rows)
    if labels == "some":
        check_given(own, name, task, given)
    learned = given if labels == "some" else {}
    known = np.array(sorted(learned), dtype=np.intp)
    y = np.zeros(n, dtype=np.intp if predictor.labels else np.float64)
    codes = np.zeros(n, dtype=np.intp)
    y[known] = np.array([learned[int(row)] for row in known], dtype=y.dtype)
    names = predictor.labels
    if len(known):
        codes[known], names = strata(y[known], predictor.labels)
    return Domains(
        task=own,
        names=(origin.name, name),
        items=list(task.target.x),
        digests=inspection.digests,
        y=y,
        strata=codes,
        strata_names=names,
        groups=joined_groups(groups_of([task]), inspection.digests),
        domain=np.ones(n, dtype=np.intp),
        train=rows[:0],
        held=rows[:0],
        target=rows,
        known=known,
        hidden={} if labels == "some" else given,
        inspections=(Inspection(()), inspection),
        recorded=origin.side,
    )


def check_fits(origin: Origin, target: Task) -> list[Warned]:
    """Return a warning where the target's table lacks columns that the run learned from.

    Raises
    ------
    InputError
        a target of another modality, or a table that has none of those columns.
    """
    predictor = origin.predictor
    if target.modality != predictor.modality:
        what = f"{origin.name} was learned from {THINGS[predictor.modality]}"
        raise InputError(f"The run of {what}, and {target.target.name} holds {THINGS[target.modality]}. Give a target of the run's own kind.")
    if target.modality != "tabular":
        return []
    wanted = columns_of(predictor)
    numbers, words = tabular.columns_of(target.target.x)
    missing = [name for name in wanted if name not in {*numbers, *words}]
    if wanted and len(missing) == len(wanted):
        raise InputError(f"{target.target.name} has none of the columns that the run of {origin.name} learned from ({listed(wanted)}). Rename them.")
    words_of = f"{target.target.name} lacks {listed(missing)}, which the run learned from: taken as missing in every row."
    return [Warned("columns", words_of, tuple(missing))] if missing else []


def columns_of(predictor: Predictor) -> list[str]:
    """Return the columns of a table that a model looks at, in order."""
    if predictor.source is not None:
        return list(dict.fromkeys(str(feature[0]) for feature in predictor.source.recipe.get("features", ())))
    steps = predictor.model.steps if isinstance(predictor.model, Pipeline) else []
    entries = [name for _, step in steps if isinstance(step, DictVectorizer) for name in step.feature_names_]
    return list(dict.fromkeys(name.split("=")[0] for name in entries))


def _recorded(name: str, n: int, held: int, counts: Any, how: str) -> Side:
    return Side(name, n, n, held, dict(counts), facts={"Cases": f"none is here, only the model {how}"})


def _has(body: nn.Module, holds: Holds | None) -> bool:
    """Whether a module of the body ``holds``; ``None``: whether anything there can learn."""
    return any(True for _ in body.parameters()) if holds is None else any(holds(module) for module in body.modules())


def _of_files(folder: Path) -> str:
    """Return a hash of the names and bytes of all files under a folder."""
    found = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        found.update(str(path.relative_to(folder)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def _of_model(predictor: Predictor) -> str:
    """Return a hash of a model that no folder holds: of its tensors, or of its pickled estimator, and of its network's weights."""
    import joblib

    about = [list(predictor.labels), dataclasses.asdict(predictor.view), predictor.temperature, predictor.reach, predictor.engine]
    about.append("" if predictor.source is None else predictor.source.weights_sha256)
    model = predictor.model
    inner = {name: value.numpy() for name, value in model.state_dict().items()} if isinstance(model, Net) else model
    return hashlib.sha256(joblib.hash([about, inner]).encode()).hexdigest()

"""What can be done to a fitted model with unlabelled target cases alone: its class shares, its moments, its norms, its stages."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from headstart.core import Net
from headstart.evaluate import scale
from headstart.learner import moved, outputs
from headstart.methods.features import LogisticPath, RidgeLOO
from headstart.methods.features.scaling import LiveScaler
from headstart.methods.method import Free, Level, knob
from headstart.methods.relations.deep import SHOT, TENT, SourceFree
from headstart.methods.relations.deep.adabn import AdaBN, take_statistics
from headstart.methods.relations.deep.bottleneck import Bottleneck
from headstart.methods.relations.label_shift import (
    BBSE,
    Corrected,
    LabelShift,
    LabelShiftEM,
    black_box_shares,
    corrected,
    correction,
    likeliest_shares,
)
from headstart.methods.relations.relation import Relation
from headstart.methods.relations.scaled import ScaledByDomain
from headstart.train import parts_of

LEAST = 1e-6  # a factor of a class; no share is so surely 0 that a class could never be predicted again


@dataclass(frozen=True)
class AsItIs(Free):
    """The model that was shipped, as it is."""

    name: ClassVar[str] = "as shipped"
    level: ClassVar[Level] = "none"
    limits: ClassVar[str] = "does nothing about the distance of the domains"

    def moved(self, x: Any, *, seed: int, deadline: float) -> Any:
        return self.start.model


@dataclass(frozen=True)
class Shares(Free):
    """The interface of corrections for label shift: multiply the model's probabilities by estimated share in the target over the share they imply.

    Heads and nets of Headstart weigh classes alike, so that their probabilities imply equal shares, whatever those of the source were, until they are
    corrected; what is corrected remembers by how much, and so can be corrected again. The factors stand behind the temperature: they are raised to it, as
    the model is served at it.

    Parameters
    ----------
    start, temperature : the model, and that at which its probabilities are right
    classes : how many
    """

    temperature: float = 1.0
    classes: int = 2

    def moved(self, x: Any, *, seed: int, deadline: float) -> Any:
        model, implied = uncorrected(self.start.model, self.classes)
        p = scale(outputs(model, x, classes=self.classes), self.temperature)
        factors = np.maximum(self.shares(p, implied) / implied, LEAST) ** self.temperature
        if not isinstance(model, Net):
            return Corrected(model, factors[np.asarray(model.classes_)])
        corrected(last_linear(model.head), factors)
        return model

    @abstractmethod
    def shares(self, p: np.ndarray, implied: np.ndarray) -> np.ndarray:
        """Return the target's class shares (c,), from probabilities (m, c) that imply the shares ``implied`` (c,)."""


@dataclass(frozen=True)
class EM(Shares):
    """By maximum likelihood (Saerens et al. 2002)."""

    name: ClassVar[str] = LabelShiftEM.name
    paper: ClassVar[str] = LabelShiftEM.paper
    limits: ClassVar[str] = LabelShiftEM.limits

    def shares(self, p: np.ndarray, implied: np.ndarray) -> np.ndarray:
        return likeliest_shares(p, implied)


@dataclass(frozen=True)
class BlackBox(Shares):
    """By the confusions that the run measured on its held-out cases (Lipton et al. 2018): ``confusion[i][j]`` cases of class j were called i."""

    confusion: tuple[tuple[int, ...], ...] = ()

    name: ClassVar[str] = BBSE.name
    paper: ClassVar[str] = BBSE.paper
    limits: ClassVar[str] = BBSE.limits

    def shares(self, p: np.ndarray, implied: np.ndarray) -> np.ndarray:
        counts = np.array(self.confusion, dtype=np.float64)
        rates = np.bincount(p.argmax(axis=1), minlength=self.classes) / len(p)
        return black_box_shares(counts / counts.sum(), rates, n=int(counts.sum()))


@dataclass(frozen=True)
class OwnMoments(Free):
    """Standardise features by the target's mean and deviation where the model kept those of its source (Li et al. 2018, of features)."""

    name: ClassVar[str] = ScaledByDomain.name
    paper: ClassVar[str] = ScaledByDomain.paper
    limits: ClassVar[str] = ScaledByDomain.limits

    def moved(self, x: Any, *, seed: int, deadline: float) -> Any:
        model = copy.deepcopy(plain(self.start.model))
        if isinstance(model, Net):
            return _with_bottleneck_of(model, x)
        if isinstance(model, Pipeline):
            seen = x
            for i, (name, step) in enumerate(model.steps[:-1]):
                model.steps[i] = (name, LiveScaler().fit(seen) if isinstance(step, StandardScaler) else step)
                seen = model.steps[i][1].transform(seen)
            return model
        live = np.isfinite(model.scale_)
        factors, centre = model.coef_ * np.where(live, model.scale_, 0.0), model.intercept_ + model.coef_ @ model.mean_
        own = LiveScaler().fit(np.asarray(x, dtype=np.float64))
        model.coef_ = factors / own.scale_
        model.intercept_ = centre - model.coef_ @ own.mean_
        model.mean_, model.scale_ = own.mean_, own.scale_
        return model


@dataclass(frozen=True)
class Statistics(Free):
    """Put the target's statistics in the place of the source's in every BatchNorm above the cut (Li et al. 2018)."""

    name: ClassVar[str] = AdaBN.name
    paper: ClassVar[str] = AdaBN.paper
    limits: ClassVar[str] = AdaBN.limits

    def moved(self, x: Any, *, seed: int, deadline: float) -> Any:
        net = copy.deepcopy(self.start.model).eval()
        with torch.no_grad():
            take_statistics(net.body, parts_of(x))
        return served(net)


@dataclass(frozen=True)
class GoneOn(Free):
    """The interface of methods of the loop that go on from a net: ``kind`` says which."""

    steps: int = 0
    rate: float = knob(1e-3, low=2e-4, high=3e-3, log=True)

    kind: ClassVar[type[SourceFree]]

    def moved(self, x: Any, *, seed: int, deadline: float) -> Any:
        return served(moved(self.kind(steps=self.steps, rate=self.rate), self.start.model, x, seed=seed, deadline=deadline))


@dataclass(frozen=True)
class ByEntropy(GoneOn):
    """TENT, from the shipped net."""

    steps: int = knob(50, choices=(25, 50, 100))

    kind: ClassVar[type[SourceFree]] = TENT
    name: ClassVar[str] = TENT.name
    paper: ClassVar[str] = TENT.paper
    limits: ClassVar[str] = TENT.limits


@dataclass(frozen=True)
class ByInformation(GoneOn):
    """SHOT, from the shipped net: under its frozen classifier, the stages above the cut learn, and its bottleneck where it has one."""

    steps: int = knob(600, choices=(300, 600, 1200))

    kind: ClassVar[type[SourceFree]] = SHOT
    name: ClassVar[str] = SHOT.name
    paper: ClassVar[str] = SHOT.paper
    limits: ClassVar[str] = SHOT.limits


def keeps_moments(model: Any) -> bool:
    """Whether a model holds the means and deviations of its source's features apart from its weights, so that others can take their place."""
    model = plain(model)
    if isinstance(model, Net):
        return isinstance(bottleneck(model), Bottleneck)
    if isinstance(model, Pipeline):
        return any(isinstance(step, StandardScaler) for _, step in model.steps[:-1])
    return isinstance(model, RidgeLOO | LogisticPath) and hasattr(model, "mean_")  # why asked: runs of before have kept none


def linear(model: Any, classes: int) -> nn.Linear | None:
    """Return a linear head of scikit-learn's kind as the layer (classes, d) that gives its logits, or its numbers; ``None`` where it is not linear.

    >>> head = RidgeLOO().fit([[0.0], [1.0], [8.0], [9.0]], [0, 0, 1, 1])
    >>> layer, x = linear(head, 2), torch.tensor([[2.0]])
    >>> bool(np.allclose(layer(x).softmax(dim=1).detach(), head.predict_proba(x), atol=1e-6))
    True
    """
    from sklearn.linear_model import RidgeCV

    if isinstance(model, Corrected):
        layer = linear(model.fitted, classes)
        return None if layer is None else corrected(layer, np.asarray(model.factors))
    model = plain(model)
    if isinstance(model, RidgeLOO | LogisticPath) and len(model.classes_) == classes:
        weight, bias = model.linear()
    elif isinstance(model, Pipeline) and len(model.steps) == 2 and isinstance(model[0], StandardScaler) and isinstance(model[1], RidgeCV):
        weight = (model[1].coef_ / model[0].scale_)[None]
        bias = np.atleast_1d(model[1].intercept_) - weight @ model[0].mean_
    else:
        return None
    made: nn.Linear = nn.utils.skip_init(nn.Linear, weight.shape[1], len(weight))
    with torch.no_grad():
        made.weight.copy_(torch.from_numpy(weight))
        made.bias.copy_(torch.from_numpy(bias))
    return made


def plain(model: Any) -> Any:
    """Return the head of a relation-level method that leaves target cases as they are, such as CORAL; else the model. Either predicts them alike."""
    as_it_is = isinstance(model, Relation) and type(model)._seen is Relation._seen and not isinstance(model, LabelShift)
    return model.head_ if as_it_is and np.array_equal(model.head_.classes_, model.classes_) else model


def last_linear(head: nn.Module) -> nn.Linear:
    """Return the classifier of a net's head."""
    return [m for m in head.modules() if isinstance(m, nn.Linear)][-1]


def bottleneck(net: Net) -> nn.Module | None:
    """Return the layer that a net's classifier sees features through, where it has one."""
    return dict(net.head.named_children()).get("bottleneck")


def opened(net: Net) -> Net:
    """Return a copy of a net whose head is a bottleneck, which may do nothing, and a classifier, as methods of the loop call them; without dropout."""
    head, narrow = copy.deepcopy(net.head), bottleneck(net)
    between = nn.Identity() if narrow is None else copy.deepcopy(narrow)
    return Net(copy.deepcopy(net.body), nn.Sequential(OrderedDict(bottleneck=between, linear=last_linear(head)))).eval()


def served(net: Net) -> Net:
    """Return the net as it is saved: a bottleneck that does nothing is left out."""
    return Net(net.body, last_linear(net.head)).eval() if isinstance(bottleneck(net), nn.Identity) else net


def uncorrected(model: Any, classes: int) -> tuple[Any, np.ndarray]:
    """Return a model as it was before its class shares were corrected for another target, and the shares (c,) that its probabilities imply; a net is copied.

    Why not by dividing its probabilities: those of a class that the other target lacked are too small to hold what they were.

    >>> head = RidgeLOO().fit([[0.0], [1.0], [8.0], [9.0]], [0, 0, 1, 1])
    >>> before, shares = uncorrected(Corrected(head, np.array([9.0, 1.0])), 2)
    >>> before is head, shares.tolist()
    (True, [0.5, 0.5])
    """
    even = np.full(classes, 1.0 / classes)
    if isinstance(model, Net):
        made = Net(copy.deepcopy(model.body), copy.deepcopy(model.head))
        corrected(last_linear(made.head), 1.0 / correction(last_linear(made.head)))
        return made, even
    if isinstance(model, LabelShift) and model.related_:
        shares = np.full(classes, LEAST)
        shares[np.asarray(model.classes_)] = np.maximum(model.source_shares_, LEAST)
        return model.head_, shares
    return (model.fitted if isinstance(model, Corrected) else model), even


def _with_bottleneck_of(net: Net, x: Any) -> Net:
    """Give the net's bottleneck the moments of what it sees of x (m, ...)."""
    narrow = bottleneck(net)
    if isinstance(narrow, Bottleneck):
        with torch.no_grad():
            scaler = LiveScaler().fit(torch.cat([net.body(part) for part in parts_of(x)]).double().numpy())
            narrow.centre.copy_(torch.from_numpy(scaler.mean_))
            narrow.scale.copy_(torch.from_numpy(1.0 / scaler.scale_))
    return net

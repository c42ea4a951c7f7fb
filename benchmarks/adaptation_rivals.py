"""Domain adaptation by other libraries, each called as its own documentation shows: skada 0.6 and adapt 0.4.5, on features that are there already.

``rivals`` gives what of them is installed. Closed-form methods come with the library's own head and, where that is another, with this package's ridge; all
else is the library's default. Trained ones get the net and the batches that this package's methods have (features standardised by the source, 256 hidden units,
32 + 32 cases of Adam), for neither library brings a net for features, and 600 steps at 1e-3, as this package's methods had until 2026-11-30; where they are
"matched" the steps and the rate that the method of that name has here today. Their weights of terms are their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from headstart.methods.features import RidgeLOO
from headstart.methods.features.ridge import ALPHAS
from headstart.methods.relations import RELATIONS
from headstart.methods.relations.deep import DEEP, SourceOnly

STEPS, BATCH, WIDTH, RATE = 600, 32, 256, 1e-3
UNSCALED = {"easyadapt", "tradaboost"}  # whose features or cases are of both domains already
SVC, LOGISTIC, NET, MATCHED, SAME = "svc", "logistic", "net", "net, matched", "ridge"


@dataclass(frozen=True)
class World:
    """Source ``xs`` (n, d), ``ys`` (n,), target ``xt`` (m, d) and, for methods that need them, the labels ``yk`` of its cases ``known``; classes 0 .. c - 1."""

    xs: np.ndarray
    ys: np.ndarray
    xt: np.ndarray
    known: np.ndarray
    yk: np.ndarray
    seed: int


Run = Callable[[World], np.ndarray]  # to class codes (m,) of the target's cases


@dataclass(frozen=True)
class Contestant:
    """One method of one library with one head; ``kind`` is closed, few (it needs labelled target cases), trained, matched, or other."""

    method: str
    side: str
    head: str
    kind: str
    run: Run

    @property
    def key(self) -> tuple[str, str, str]:
        return self.method, self.side, self.head


class Ridge(RidgeLOO):
    """This package's ridge as its own methods use it, under scikit-learn's word for weights: cases of weight 0 left out, scaled over both domains."""

    def __init__(self, *, alphas: tuple[float, ...] = ALPHAS, balanced: bool = True, each: bool = True, beside: np.ndarray | None = None) -> None:
        super().__init__(alphas=alphas, balanced=balanced, each=each)
        self.beside = beside

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Ridge:
        if sample_weight is None:
            super().fit(X, y, beside=self.beside)
            return self
        alive = np.asarray(sample_weight) > 0
        super().fit(X[alive], y[alive], weights=sample_weight[alive] / sample_weight[alive].mean(), beside=self.beside)
        return self


def ridge(method: str, world: World) -> Ridge:
    """Return the head that this package's method of that name has by default."""
    return Ridge(each=False) if RELATIONS[method].gives_components else Ridge(beside=world.xt if method not in UNSCALED else None)


def rivals(sides: set[str]) -> list[Contestant]:
    """Return every contestant of those libraries; say which is not here."""
    found: list[Contestant] = []
    for side, make in (("skada", skada_closed), ("skada", skada_trained), ("adapt", adapt_closed), ("adapt", adapt_trained)):
        if side in sides:
            try:
                found += make()
            except ImportError as missing:
                print(f"{side} is left out ({make.__name__}): {missing}", flush=True)
    return found


# ---------------------------------------------------------------- skada


def skada_closed() -> list[Contestant]:
    """skada's pipelines. Heads: an SVC with a Gaussian kernel after maps, logistic regression after weights."""
    import skada

    maps = {
        "coral": skada.CORAL,
        "subspace-alignment": skada.SubspaceAlignment,
        "tca": skada.TransferComponentAnalysis,
        "ot": skada.OTMapping,
        "ot-entropic": skada.EntropicOTMapping,
        "ot-class": skada.ClassRegularizerOTMapping,
        "ot-linear": skada.LinearOTMapping,
    }
    weights = {
        "kmm": skada.KMMReweight,
        "kliep": skada.KLIEPReweight,
        "density-ratio": skada.DiscriminatorReweight,
        "nn-weights": skada.NearestNeighborReweight,
    }
    others = {
        "kernel densities": (LOGISTIC, skada.DensityReweight),
        "Gaussian densities": (LOGISTIC, skada.GaussianReweight),
        "label propagation by transport": (SVC, skada.OTLabelProp),
        "JDOT": (LOGISTIC, skada.JDOTClassifier),
        "DASVM": (SVC, skada.DASVMClassifier),
    }
    found = []
    for head, some in ((SVC, maps), (LOGISTIC, weights)):
        for name, make in some.items():
            found.append(Contestant(name, "skada", head, "closed", partial(_skada, make)))
            found.append(Contestant(name, "skada", SAME, "closed", partial(_skada, make, head=name)))
    return found + [Contestant(name, "skada", head, "other", partial(_skada, make)) for name, (head, make) in others.items()]


def _skada(make: Callable[..., Any], world: World, head: str = "") -> np.ndarray:
    """Fit and predict; ``head`` names the method of this package whose head it gets."""
    n, m = len(world.xs), len(world.xt)
    X, y = np.vstack([world.xs, world.xt]), np.concatenate([world.ys, np.full(m, -1)])  # how skada writes that there is no label
    model = make(ridge(head, world).set_fit_request(sample_weight=True)) if head else make()
    model = model.fit(X, y, sample_domain=np.repeat([1, -2], [n, m]))
    try:
        return np.asarray(model.predict(world.xt, sample_domain=np.full(m, -2)))
    except TypeError:  # why: DASVM's predict takes no domains
        return np.asarray(model.predict(world.xt))


def skada_trained() -> list[Contestant]:
    """skada's deep methods, which train by skorch."""
    from skada import deep

    made: dict[str, Callable[..., Any]] = {
        "source-only": deep.SourceOnly,
        "dan": deep.DAN,
        "deep-coral": deep.DeepCoral,
        "deep-jdot": deep.DeepJDOT,
        "dann": lambda net, layer, c, **given: deep.DANN(net, layer, num_features=WIDTH, **given),
        "cdan": lambda net, layer, c, **given: deep.CDAN(net, layer, num_features=WIDTH, n_classes=c, **given),
        "mdd": lambda net, layer, c, **given: deep.MDD(net, layer, num_features=WIDTH, n_classes=c, **given),
        "mcc": deep.MCC,
    }
    plain = {"source-only", "dan", "deep-coral", "deep-jdot", "mcc"}
    return [one for name, make in made.items() for one in _both_ways(name, "skada", partial(_skada_deep, make, name in plain))]


def _both_ways(name: str, side: str, run: Callable[..., np.ndarray]) -> list[Contestant]:
    """Return a trained method with the long training, and with the one that its namesake has here."""
    here = DEEP.get(name, SourceOnly)()
    ways = (NET, "trained", STEPS, RATE), (MATCHED, "matched", here.steps, here.rate)
    return [Contestant(name, side, head, kind, partial(run, steps=steps, rate=rate)) for head, kind, steps, rate in ways]


def _skada_deep(make: Callable[..., Any], plain: bool, world: World, *, steps: int, rate: float) -> np.ndarray:
    import torch
    from torch import nn

    torch.manual_seed(world.seed)
    xs, xt = standardised(world)
    c = int(world.ys.max()) + 1

    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.narrow = nn.Sequential(nn.Linear(xs.shape[1], WIDTH), nn.ReLU())
            self.last = nn.Linear(WIDTH, c)

        def forward(self, X: torch.Tensor, sample_weight: Any = None) -> torch.Tensor:
            return self.last(self.narrow(X))

    net = Narrow()
    given: dict[str, Any] = {
        "max_epochs": epochs(len(xs), len(xt), steps),
        "batch_size": BATCH,
        "lr": rate,
        "optimizer": torch.optim.Adam,
        "train_split": None,
        "verbose": 0,
    }
    model = make(net, "narrow", **given) if plain else make(net, "narrow", c, **given)
    X, y = np.vstack([xs, xt]), np.concatenate([world.ys, np.full(len(xt), -1)])
    model.fit(X, y, sample_domain=np.repeat([1, -2], [len(xs), len(xt)]))
    return np.asarray(model.predict(xt, sample_domain=np.full(len(xt), -2), allow_source=True)).reshape(len(xt), -1)[:, 0].astype(int)


def standardised(world: World) -> tuple[np.ndarray, np.ndarray]:
    """Return both domains in float32, standardised by the source."""
    mean, spread = world.xs.mean(axis=0), world.xs.std(axis=0)
    spread = np.where(spread > 0, spread, np.inf)
    xs, xt = (((x - mean) / spread).astype(np.float32) for x in (world.xs, world.xt))
    return xs, xt


def epochs(n: int, m: int, steps: int) -> int:
    """Return how many passes of the larger domain make so many steps."""
    return max(1, round(steps / max(1, max(n, m) // BATCH)))


# ---------------------------------------------------------------- adapt


def adapt_closed() -> list[Contestant]:
    """adapt's methods. It has no classifier of its own (``None`` is a linear regression on codes): its documentation gives one, here logistic regression."""
    from adapt import feature_based, instance_based

    made = {
        "coral": feature_based.CORAL,
        "subspace-alignment": feature_based.SA,
        "tca": feature_based.TCA,
        "kmm": instance_based.KMM,
        "kliep": instance_based.KLIEP,
        "density-ratio": instance_based.IWC,
        "nn-weights": instance_based.NearestNeighborsWeighting,
        "tradaboost": instance_based.TrAdaBoost,
        "easyadapt": feature_based.FA,
        "ULSIF": instance_based.ULSIF,
        "RULSIF": instance_based.RULSIF,
    }
    few, others = {"tradaboost", "easyadapt"}, {"ULSIF", "RULSIF"}
    found = []
    for name, make in made.items():
        kind = "few" if name in few else "other" if name in others else "closed"
        found.append(Contestant(name, "adapt", LOGISTIC, kind, partial(_adapt, make)))
        if kind != "other":
            found.append(Contestant(name, "adapt", SAME, kind, partial(_adapt, make, head=name)))
    return found


def _adapt(make: Any, world: World, head: str = "") -> np.ndarray:
    estimator = ridge(head, world) if head else LogisticRegression(max_iter=1000)
    state = np.random.get_state()  # why: adapt seeds NumPy's own generator
    if len(world.known):
        model = make(estimator, Xt=world.xt[world.known], yt=world.yk, verbose=0, random_state=world.seed)
    else:
        model = make(estimator, Xt=world.xt, verbose=0, random_state=world.seed)
    model.fit(world.xs, world.ys)
    np.random.set_state(state)
    return np.asarray(model.predict(world.xt)).ravel()


def adapt_trained() -> list[Contestant]:
    """adapt's deep methods, which train by Keras."""
    from adapt import feature_based

    made: dict[str, Any] = {
        "deep-coral": feature_based.DeepCORAL,
        "dann": feature_based.DANN,
        "cdan": feature_based.CDAN,
        "mdd": feature_based.MDD,
        "mcd": feature_based.MCD,
    }
    return [one for name, make in made.items() for one in _both_ways(name, "adapt", partial(_adapt_deep, make, name))]


def _adapt_deep(make: Any, name: str, world: World, *, steps: int, rate: float) -> np.ndarray:
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(world.seed)
    xs, xt = standardised(world)
    c = int(world.ys.max()) + 1
    dense, inputs = keras.layers.Dense, keras.Input
    encoder = keras.Sequential([inputs((xs.shape[1],)), dense(WIDTH, activation="relu", kernel_initializer="he_normal")])
    task = keras.Sequential([inputs((WIDTH,)), dense(c, activation="softmax")])
    parts: dict[str, Any] = {"encoder": encoder, "task": task}
    if name in {"dann", "cdan"}:
        seen = WIDTH if name == "dann" else min(WIDTH * c, 4096)
        parts["discriminator"] = keras.Sequential([inputs((seen,)), dense(WIDTH, activation="relu"), dense(1, activation="sigmoid")])
    adam = keras.optimizers.Adam(rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make(**parts, Xt=xt, loss="categorical_crossentropy", optimizer=adam, verbose=0, random_state=world.seed)
        model.fit(xs, np.eye(c, dtype=np.float32)[world.ys], epochs=epochs(len(xs), len(xt), steps), batch_size=BATCH, verbose=0)
        said = np.asarray(model.predict(xt, verbose=0))
    del model
    tf.keras.backend.clear_session()
    return said.argmax(axis=1)

"""Ways to transfer, one file each; ``METHODS`` is the one table of them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from headstart.core import InputError
from headstart.methods.data.augmented import AugmentImage, AugmentTable, AugmentTableRegressor, AugmentText, AugmentTextRegressor
from headstart.methods.data.borrowed import Borrow
from headstart.methods.data.by_gradient import BorrowGradient
from headstart.methods.data.by_ratio import BorrowRatio
from headstart.methods.data.by_similarity import BorrowSimilar
from headstart.methods.data.calibrated import Calibrated
from headstart.methods.data.curriculum import BorrowCurriculum
from headstart.methods.data.gaussian import Gaussian
from headstart.methods.data.interpolate import Interpolate
from headstart.methods.data.mixed import CutMix, FineTuneViews, MixUp
from headstart.methods.data.restyled import Restyle
from headstart.methods.data.smote import Smote
from headstart.methods.data.smote import installed as sampler_installed
from headstart.methods.features.boosting import Boosting, BoostingRegressor
from headstart.methods.features.discriminant import LDA, QDA
from headstart.methods.features.gaussian_process import GaussianProcess, GaussianProcessRegressor
from headstart.methods.features.head2toe import Head2Toe, Head2ToeRegressor
from headstart.methods.features.machines import SVM, LinearSVM, LinearSVMRegressor, SVMRegressor
from headstart.methods.features.mlp import SmallNet, SmallNetRegressor
from headstart.methods.features.plain import Logistic, Neighbours, NeighboursRegressor, Ridge, RidgeRegressor
from headstart.methods.features.probe import Probe, ProbeRegressor
from headstart.methods.features.prototype import Cosine, Prototype
from headstart.methods.features.random_features import RandomFeatures, RandomFeaturesRegressor
from headstart.methods.features.stages import Stages, StagesRegressor
from headstart.methods.method import Closed, Knob, Method, View, knob, space
from headstart.methods.model.adapters import HRA, IA3, Adapter, DoRA, LoHa, LoKr, LoRA, RsLoRA, installed
from headstart.methods.model.bss import BSS
from headstart.methods.model.co_tuning import CoTuning
from headstart.methods.model.delta import DELTA
from headstart.methods.model.distil import Distil
from headstart.methods.model.fine_tune import FineTune
from headstart.methods.model.gradual import Discriminative, Gradual
from headstart.methods.model.l2sp import L2SP
from headstart.methods.model.layers import KeepFirst, KeepLast
from headstart.methods.model.one_cycle import OneCycle
from headstart.methods.model.progressive import Progressive
from headstart.methods.model.sparse import BitFit, NormOnly
from headstart.methods.model.stochnorm import StochNorm
from headstart.methods.model.surgical import AutoRGN, Surgical
from headstart.methods.model.whole import FineTuneAll, FineTuneFrom
from headstart.methods.relations.deep import DEEP
from headstart.methods.scratch import Scratch
from headstart.methods.simple import SIMPLE, SimpleImage, SimpleTable, SimpleText

METHODS: dict[str, tuple[type[Closed | Method], ...]] = {
    "simple": (SimpleImage, SimpleText, SimpleTable),
    "scratch": (Scratch,),
    "frozen + head": (Probe, ProbeRegressor),
    "ridge": (Ridge, RidgeRegressor),
    "logistic": (Logistic,),
    "knn": (Neighbours, NeighboursRegressor),
    "linear-svm": (LinearSVM, LinearSVMRegressor),
    "svm": (SVM, SVMRegressor),
    "lda": (LDA,),
    "qda": (QDA,),
    "prototype": (Prototype,),
    "cosine": (Cosine,),
    "random-features": (RandomFeatures, RandomFeaturesRegressor),
    "gaussian-process": (GaussianProcess, GaussianProcessRegressor),
    "boosting": (Boosting, BoostingRegressor),
    "mlp": (SmallNet, SmallNetRegressor),
    "stages": (Stages, StagesRegressor),
    "head2toe": (Head2Toe, Head2ToeRegressor),
    "augment": (AugmentImage, AugmentText, AugmentTextRegressor, AugmentTable, AugmentTableRegressor),
    "interpolate": (Interpolate,),
    "gaussian": (Gaussian,),
    "smote": (Smote,),
    "restyle": (Restyle,),
    "calibrated": (Calibrated,),
    "borrow": (Borrow,),
    "borrow-ratio": (BorrowRatio,),
    "borrow-similar": (BorrowSimilar,),
    "borrow-gradient": (BorrowGradient,),
    "borrow-curriculum": (BorrowCurriculum,),
    "mixup": (MixUp,),
    "cutmix": (CutMix,),
    "fine-tune-views": (FineTuneViews,),
    "fine-tune": (FineTune,),
    "fine-tune-all": (FineTuneAll,),
    "fine-tune-from": (FineTuneFrom,),
    "gradual": (Gradual,),
    "discriminative": (Discriminative,),
    "one-cycle": (OneCycle,),
    "bitfit": (BitFit,),
    "norm-only": (NormOnly,),
    "surgical": (Surgical,),
    "auto-rgn": (AutoRGN,),
    "l2-sp": (L2SP,),
    "delta": (DELTA,),
    "bss": (BSS,),
    "stochastic-norm": (StochNorm,),
    "co-tuning": (CoTuning,),
    "keep-first": (KeepFirst,),
    "keep-last": (KeepLast,),
    "progressive": (Progressive,),
    "distil": (Distil,),
    "lora": (LoRA,),
    "rs-lora": (RsLoRA,),
    "dora": (DoRA,),
    "loha": (LoHa,),
    "lokr": (LoKr,),
    "ia3": (IA3,),
    "hra": (HRA,),
}
ALIASES = {"lp-ft": "fine-tune", "rslora": "rs-lora"}  # what papers call what is listed under another name
EVERY_RUN = frozenset({"simple", "scratch", "frozen + head"})  # measured whatever is named


def tuners(names: Sequence[str]) -> tuple[type[Closed | Method], ...]:
    """Return the methods of those names that a run tries because it was asked to, once each, in that order.

    They tune a source's weights, or (``Closed``) learn from its frozen features; of those for classes and for numbers, the first stands for both.

    >>> [method.name for method in tuners(["lp-ft", "l2-sp", "fine-tune", "head2toe"])]
    ['fine-tune', 'l2-sp', 'head2toe']

    Raises
    ------
    InputError
        no name; no such method (with the nearest names); one that is always measured, such as a baseline; one that needs a second domain; a package that
        it needs is missing.
    """
    if not names:
        raise InputError("No method was named. List them with: headstart methods")
    return tuple(dict.fromkeys(_tuner(name) for name in names))


def _tuner(name: str) -> type[Closed | Method]:
    known = [*METHODS, *ALIASES]
    wanted = ALIASES.get(name, name)
    if wanted in DEEP:
        raise InputError(f"Method {name!r} moves a model to a second domain, and transfer has one. Give both: headstart adapt SOURCE TARGET")
    if wanted not in METHODS:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"There is no method {name!r}.{hint} List them with: headstart methods")
    if wanted in EVERY_RUN:
        raise InputError(f"Method {name!r} is measured in every run. Name methods that tune a source's weights: headstart methods")
    method = METHODS[wanted][0]
    if issubclass(method, Adapter):
        installed()
    if issubclass(method, Smote):
        sampler_installed()
    return method


__all__ = [
    "ALIASES",
    "BSS",
    "DEEP",
    "DELTA",
    "HRA",
    "IA3",
    "L2SP",
    "METHODS",
    "SIMPLE",
    "AugmentImage",
    "AugmentTable",
    "AugmentTableRegressor",
    "AugmentText",
    "AugmentTextRegressor",
    "AutoRGN",
    "BitFit",
    "Borrow",
    "BorrowCurriculum",
    "BorrowGradient",
    "BorrowRatio",
    "BorrowSimilar",
    "Calibrated",
    "Closed",
    "CoTuning",
    "CutMix",
    "Discriminative",
    "Distil",
    "DoRA",
    "FineTune",
    "FineTuneAll",
    "FineTuneFrom",
    "FineTuneViews",
    "Gaussian",
    "Gradual",
    "Head2Toe",
    "Head2ToeRegressor",
    "Interpolate",
    "KeepFirst",
    "KeepLast",
    "Knob",
    "LoHa",
    "LoKr",
    "LoRA",
    "Method",
    "MixUp",
    "NormOnly",
    "OneCycle",
    "Probe",
    "ProbeRegressor",
    "Progressive",
    "Restyle",
    "RsLoRA",
    "Scratch",
    "SimpleImage",
    "SimpleTable",
    "SimpleText",
    "Smote",
    "StochNorm",
    "Surgical",
    "View",
    "knob",
    "space",
    "tuners",
]

"""Relation-level transfer: two domains, labels in one; estimators that close the gap on features (n, d), or weigh source cases across it.

All are scikit-learn estimators with ``fit(X, y, X_target=None, y_target=None)``; without a target they are plain training of their head. ``RELATIONS`` is the
one table of those for classes, ``REGRESSIONS`` of those for numbers. Each says its paper, its limits, and whether it needs labelled target cases.
"""

from __future__ import annotations

from headstart.methods.relations.augmentation import EasyAdapt, EasyAdaptRegressor
from headstart.methods.relations.boosting import TrAdaBoost, TrAdaBoostR2
from headstart.methods.relations.components import TCA
from headstart.methods.relations.gaussian import CORAL, CORALRegressor, LinearOT
from headstart.methods.relations.joint import BDA, JDA, JPDA
from headstart.methods.relations.label_shift import BBSE, LabelShiftEM
from headstart.methods.relations.propagation import LabelPropagation
from headstart.methods.relations.relation import Mapped, Relation, Weighted
from headstart.methods.relations.scaled import ScaledByDomain, ScaledByDomainRegressor
from headstart.methods.relations.subspace import GFK, SubspaceAlignment
from headstart.methods.relations.transport import OT, ClassOT, EntropicOT, EntropicOTRegressor
from headstart.methods.relations.weights import (
    KLIEP,
    KMM,
    DensityRatio,
    DensityRatioRegressor,
    InstanceSelection,
    KLIEPRegressor,
    KMMRegressor,
    NearestNeighbourRegressor,
    NearestNeighbourWeights,
)

RELATIONS: dict[str, type[Relation]] = {
    method.name: method
    for method in (
        ScaledByDomain,
        CORAL,
        LinearOT,
        SubspaceAlignment,
        GFK,
        TCA,
        JDA,
        BDA,
        JPDA,
        OT,
        EntropicOT,
        ClassOT,
        KMM,
        KLIEP,
        DensityRatio,
        NearestNeighbourWeights,
        InstanceSelection,
        BBSE,
        LabelShiftEM,
        LabelPropagation,
        TrAdaBoost,
        EasyAdapt,
    )
}
REGRESSIONS: dict[str, type[Relation]] = {
    method.name: method
    for method in (
        ScaledByDomainRegressor,
        CORALRegressor,
        EntropicOTRegressor,
        KMMRegressor,
        KLIEPRegressor,
        DensityRatioRegressor,
        NearestNeighbourRegressor,
        TrAdaBoostR2,
        EasyAdaptRegressor,
    )
}

__all__ = [
    "BBSE",
    "BDA",
    "CORAL",
    "GFK",
    "JDA",
    "JPDA",
    "KLIEP",
    "KMM",
    "OT",
    "REGRESSIONS",
    "RELATIONS",
    "TCA",
    "CORALRegressor",
    "ClassOT",
    "DensityRatio",
    "DensityRatioRegressor",
    "EasyAdapt",
    "EasyAdaptRegressor",
    "EntropicOT",
    "EntropicOTRegressor",
    "InstanceSelection",
    "KLIEPRegressor",
    "KMMRegressor",
    "LabelPropagation",
    "LabelShiftEM",
    "LinearOT",
    "Mapped",
    "NearestNeighbourRegressor",
    "NearestNeighbourWeights",
    "Relation",
    "ScaledByDomain",
    "ScaledByDomainRegressor",
    "SubspaceAlignment",
    "TrAdaBoost",
    "TrAdaBoostR2",
    "Weighted",
]

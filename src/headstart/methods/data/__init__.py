"""Data-level transfer: more cases made of those that are there, and cases that a source lends; each a head on features, measured like any other."""

from __future__ import annotations

from headstart.methods.data.augmented import AugmentedRidge, AugmentedRidgeRegressor
from headstart.methods.data.borrowed import BorrowingRidge
from headstart.methods.data.by_gradient import GradientRidge
from headstart.methods.data.by_ratio import RatioRidge
from headstart.methods.data.by_similarity import SimilarRidge
from headstart.methods.data.calibrated import CalibratedRidge
from headstart.methods.data.curriculum import CurriculumRidge
from headstart.methods.data.gaussian import GaussianRidge
from headstart.methods.data.interpolate import InterpolatedRidge
from headstart.methods.data.smote import SmoteRidge

# what a run may ship, and loads again
ESTIMATORS: tuple[type, ...] = (
    AugmentedRidge,
    AugmentedRidgeRegressor,
    BorrowingRidge,
    CalibratedRidge,
    CurriculumRidge,
    GaussianRidge,
    GradientRidge,
    InterpolatedRidge,
    RatioRidge,
    SimilarRidge,
    SmoteRidge,
)

__all__ = [
    "ESTIMATORS",
    "AugmentedRidge",
    "AugmentedRidgeRegressor",
    "BorrowingRidge",
    "CalibratedRidge",
    "CurriculumRidge",
    "GaussianRidge",
    "GradientRidge",
    "InterpolatedRidge",
    "RatioRidge",
    "SimilarRidge",
    "SmoteRidge",
]

"""Data-level transfer: more cases made of those that are there, and cases that a source lends; each a head on features, measured like any other."""

from __future__ import annotations

from headstart.methods.data.augmented import AugmentedRidge, AugmentedRidgeRegressor

ESTIMATORS: tuple[type, ...] = (AugmentedRidge, AugmentedRidgeRegressor)  # what a run may ship, and loads again

__all__ = ["ESTIMATORS", "AugmentedRidge", "AugmentedRidgeRegressor"]

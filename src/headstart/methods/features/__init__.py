"""Heads on activations: scikit-learn classifiers that take features (n, d) and choose their own regularisation."""

from __future__ import annotations

from headstart.methods.features.knn import KNN
from headstart.methods.features.logistic import LogisticPath
from headstart.methods.features.ridge import RidgeLOO
from headstart.methods.features.svm import KernelSVM

HEADS: dict[str, type] = {"logistic": LogisticPath, "ridge": RidgeLOO, "knn": KNN, "svm": KernelSVM}

__all__ = ["HEADS", "KNN", "KernelSVM", "LogisticPath", "RidgeLOO"]

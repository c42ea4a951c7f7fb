"""What every relation-level method promises: scikit-learn's checks, two domains at the door, and laws that hold whatever the data."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from headstart.core import InputError
from headstart.methods.features import RidgeLOO
from headstart.methods.relations import REGRESSIONS, RELATIONS, Mapped, Weighted

CLASSIFIERS, REGRESSORS = list(RELATIONS.values()), list(REGRESSIONS.values())
EVERY = CLASSIFIERS + REGRESSORS


@parametrize_with_checks([method() for method in EVERY])
def test_every_method_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)

"""Support vector machines by name: a linear one, and one with a Gaussian kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from headstart.methods.features.head import Head
from headstart.methods.features.svm import KernelSVM, Platt
from headstart.methods.features.weighing import Standardised
from headstart.methods.method import knob

STEPS = 10_000
LINEAR = "Fan et al. 2008, LIBLINEAR: a library for large linear classification"
KERNEL = "Cortes & Vapnik 1995, Support-vector networks"


@dataclass(frozen=True)
class LinearSVM(Head):
    """The linear support vector machine, with Platt's probabilities.

    Parameters
    ----------
    strength : C, what a case on the wrong side costs; 1e-2 is about where a ridge on 1,000 standardised features has its best penalty

    Examples
    --------
    >>> LinearSVM().estimator(seed=0).fit([[0.0], [1.0], [8.0], [9.0]], [0, 0, 1, 1]).predict([[7.0]]).tolist()
    [1]
    """

    name: ClassVar[str] = "linear-svm"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = LINEAR
    limits: ClassVar[str] = "its strength is searched, not found in closed form"

    strength: float = knob(1e-2, low=1e-5, high=1.0, log=True)

    def head(self, *, seed: int) -> Any:
        from sklearn.svm import LinearSVC

        return Platt(LinearSVC(C=self.strength, max_iter=STEPS, random_state=seed), seed=seed)


@dataclass(frozen=True)
class LinearSVMRegressor(Head):
    """The same for numbers.

    Parameters
    ----------
    strength : as in :class:`LinearSVM`
    """

    name: ClassVar[str] = "linear-svm"
    needs: ClassVar[frozenset[str]] = frozenset({"numbers"})
    paper: ClassVar[str] = LINEAR
    limits: ClassVar[str] = "its strength is searched, not found in closed form"

    strength: float = knob(1e-2, low=1e-5, high=1.0, log=True)

    def head(self, *, seed: int) -> Any:
        from sklearn.svm import LinearSVR

        return Standardised(LinearSVR(C=self.strength, epsilon=0.05, max_iter=STEPS, random_state=seed))


@dataclass(frozen=True)
class SVM(Head):
    """The support vector machine with a Gaussian kernel, with Platt's probabilities.

    Parameters
    ----------
    strength : C, what a case on the wrong side costs

    Examples
    --------
    >>> SVM().estimator(seed=0).fit([[0.0], [1.0], [8.0], [9.0]], [0, 0, 1, 1]).predict([[7.0]]).tolist()
    [1]
    """

    name: ClassVar[str] = "svm"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = KERNEL
    limits: ClassVar[str] = "memory goes with the square of the cases: 800 MB at 10,000"

    strength: float = knob(3.0, low=0.1, high=100.0, log=True)

    def head(self, *, seed: int) -> Any:
        return KernelSVM(C=self.strength, seed=seed)


@dataclass(frozen=True)
class SVMRegressor(Head):
    """The same for numbers.

    Parameters
    ----------
    strength : as in :class:`SVM`
    """

    name: ClassVar[str] = "svm"
    needs: ClassVar[frozenset[str]] = frozenset({"numbers"})
    paper: ClassVar[str] = KERNEL
    limits: ClassVar[str] = "time goes with the square of the cases"

    strength: float = knob(3.0, low=0.1, high=100.0, log=True)

    def head(self, *, seed: int) -> Any:
        from sklearn.svm import SVR

        return Standardised(SVR(C=self.strength))

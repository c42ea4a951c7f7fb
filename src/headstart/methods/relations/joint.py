"""Components that bring the domains' classes together, by pseudo-labels of the target: JDA (Long et al. 2013), BDA and W-BDA (Wang et al. 2017), JPDA.

Each step seeks directions for the pseudo-labels of the last, and a head on them gives the next. What differs is the matrix M of
:mod:`headstart.methods.relations.whitening`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin

from headstart.methods.relations.components import Components
from headstart.methods.relations.door import Domains, codes_of, fit_head
from headstart.methods.relations.whitening import Whitened, conditional, marginal, of_unit_norm


class Joint(Components):
    """The interface of components from pseudo-labels: a method says what is pulled together and pushed apart.

    Attributes
    ----------
    components_ : (d, k) the map, or (n + m, k) with a Gaussian kernel
    pseudo_labels_ : (m,) of the target cases, from the last step
    steps_ : steps that were made; fewer than ``steps`` where no pseudo-label changed
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_components: int | None = None,
        ridge: float = 0.1,
        steps: int = 10,
        kernel: str = "linear",
        gamma: float | None = None,
        unit: bool = True,
    ) -> None:
        self.estimator = estimator
        self.n_components = n_components
        self.ridge = ridge
        self.steps = steps
        self.kernel = kernel
        self.gamma = gamma
        self.unit = unit

    def _align(self, domains: Domains) -> None:
        lifted = self._lifted(domains)
        whitened, n = Whitened.of(lifted), len(domains.xs)
        source, labels = codes_of(self.classes_, domains.ys), np.concatenate([domains.ys, domains.yt])
        pseudo: np.ndarray | None = None
        for step in range(self.steps):
            pull, push = self._pull_and_push(source, len(domains.xt), pseudo)
            self.components_ = whitened.directions(pull, ridge=self.ridge, k=self.n_components, push=push)
            placed = self._place(lifted)
            found = fit_head(self.final(), np.vstack([placed[:n], placed[n:][domains.known]]), labels).predict(placed[n:])
            found[domains.known] = domains.yt
            self.pseudo_labels_, self.steps_ = found, step + 1
            before, pseudo = pseudo, codes_of(self.classes_, found)
            if before is not None and np.array_equal(before, pseudo):
                break

    @abstractmethod
    def _pull_and_push(self, source: np.ndarray, m: int, pseudo: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Return E (n + m, p) and R (n + m, q) of M = E E' - R R' for class codes (n,) and pseudo-labels (m,), ``None`` before the first."""


class JDA(ClassifierMixin, Joint):
    """Classify by a head on components that bring together the domains' means and, by pseudo-labels, those of each class (Long et al. 2013).

    The target's pseudo-labels come from the head of the step before; the first step has the marginal term alone. M is the sum of C times the marginal term
    and the class terms, over its Frobenius norm. Target cases with a label keep it.

    Parameters
    ----------
    estimator : the head, also for the pseudo-labels; ``None``: ridge with leave-one-out
    n_components, ridge, kernel, gamma : as in :class:`TCA`
    steps : how often pseudo-labels are made; it stops earlier where none changes
    unit : scale each case to unit length, as published. It makes the origin matter: features should not lie far from it

    Attributes
    ----------
    components_ : (d, k), or (n + m, k) with a Gaussian kernel
    pseudo_labels_ : (m,) of the target cases, from the last step
    steps_ : steps that were made

    Examples
    --------
    >>> source, labels = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 8.0], [0.0, 9.0]]), ["a", "a", "b", "b"]
    >>> JDA(n_components=1, unit=False).fit(source, labels, source + [5.0, 0.0]).pseudo_labels_.tolist()
    ['a', 'a', 'b', 'b']
    """

    name: ClassVar[str] = "jda"
    paper: ClassVar[str] = "Long et al. 2013, Transfer feature learning with joint distribution adaptation"
    limits: ClassVar[str] = "builds on its own pseudo-labels: where the first are mostly wrong, classes are brought together wrongly"

    def _pull_and_push(self, source: np.ndarray, m: int, pseudo: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        c = len(self.classes_)
        pull = np.sqrt(c) * marginal(len(source), m)[:, None]
        if pseudo is not None:
            pull = np.hstack([pull, conditional(source, pseudo, c)])
        return of_unit_norm(pull), None


class BDA(ClassifierMixin, Joint):
    """:class:`JDA` with a balance between means and class means, and classes weighed by their shares (Wang et al. 2017).

    M = (1 - balance) marginal + balance sum over classes, over its Frobenius norm. With ``weighted`` (W-BDA) each side of a class term is multiplied by the
    root of the class's share in its domain, so that a class that one domain has more of is not forced into one place.

    Parameters
    ----------
    estimator, n_components, ridge, steps, kernel, gamma, unit : as in :class:`JDA`
    balance : 0 (TCA) to 1 (class terms alone). 0.5: both the same, for the paper's choice reads target labels
    weighted : W-BDA

    Examples
    --------
    >>> source, labels = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 8.0], [0.0, 9.0]]), ["a", "a", "b", "b"]
    >>> BDA(n_components=1, unit=False).fit(source, labels, source + [5.0, 0.0]).pseudo_labels_.tolist()
    ['a', 'a', 'b', 'b']
    """

    name: ClassVar[str] = "bda"
    paper: ClassVar[str] = "Wang et al. 2017, Balanced distribution adaptation for transfer learning"
    limits: ClassVar[str] = "builds on its own pseudo-labels; the balance is not chosen by it"

    def __init__(
        self,
        estimator: Any = None,
        *,
        balance: float = 0.5,
        weighted: bool = False,
        n_components: int | None = None,
        ridge: float = 0.1,
        steps: int = 10,
        kernel: str = "linear",
        gamma: float | None = None,
        unit: bool = True,
    ) -> None:
        super().__init__(estimator, n_components=n_components, ridge=ridge, steps=steps, kernel=kernel, gamma=gamma, unit=unit)
        self.balance = balance
        self.weighted = weighted

    def _pull_and_push(self, source: np.ndarray, m: int, pseudo: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        n, c = len(source), len(self.classes_)
        both = marginal(n, m)[:, None]
        if pseudo is None:
            return of_unit_norm(both), None
        classes = conditional(source, pseudo, c)
        if self.weighted:
            classes[:n] *= np.sqrt(np.bincount(source, minlength=c) / n)
            classes[n:] *= np.sqrt(np.bincount(pseudo, minlength=c) / m)
        return of_unit_norm(np.hstack([np.sqrt(1.0 - self.balance) * both, np.sqrt(self.balance) * classes])), None


class JPDA(ClassifierMixin, Joint):
    """Classify by a head on components that bring each class together across the domains and keep different classes apart (Zhang & Wu 2020).

    Joint probabilities are compared as they are, P(x, c), without the detour over marginal and conditional: M = R_min - mu R_max, where R_min sums over classes
    the difference of a class's weighted sums, 1/n in the source and 1/m in the target, and R_max that between a source class and each other target class; each
    over its Frobenius norm. The first step has the marginal term alone; the authors' code has an empty target there, which pulls every class to the origin.

    Parameters
    ----------
    estimator, n_components, steps, kernel, gamma, unit : as in :class:`JDA`
    ridge : price of a direction's length; 0.1, as published
    apart : mu, the weight of keeping classes apart; 0.1, as published

    Examples
    --------
    >>> source, labels = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 8.0], [0.0, 9.0]]), ["a", "a", "b", "b"]
    >>> JPDA(n_components=1, unit=False).fit(source, labels, source + [5.0, 0.0]).pseudo_labels_.tolist()
    ['a', 'a', 'b', 'b']
    """

    name: ClassVar[str] = "jpda"
    paper: ClassVar[str] = "Zhang & Wu 2020, Discriminative joint probability maximum mean discrepancy for domain adaptation"
    limits: ClassVar[str] = "builds on its own pseudo-labels; classes' shares are taken to be the same in both domains"

    def __init__(
        self,
        estimator: Any = None,
        *,
        apart: float = 0.1,
        n_components: int | None = None,
        ridge: float = 0.1,
        steps: int = 10,
        kernel: str = "linear",
        gamma: float | None = None,
        unit: bool = True,
    ) -> None:
        super().__init__(estimator, n_components=n_components, ridge=ridge, steps=steps, kernel=kernel, gamma=gamma, unit=unit)
        self.apart = apart

    def _pull_and_push(self, source: np.ndarray, m: int, pseudo: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        n, c = len(source), len(self.classes_)
        if pseudo is None:
            return of_unit_norm(marginal(n, m)[:, None]), None
        S, T = np.zeros((n + m, c)), np.zeros((n + m, c))
        S[:n], T[n:] = np.eye(c)[source] / n, np.eye(c)[pseudo] / m
        # the sum over all pairs of (s - t)(s - t)' has the factor ``pairs``; R_max is that less the pairs of equal classes, E E'
        E, total = S - T, (S - T).sum(axis=1, keepdims=True)
        pairs = np.hstack([np.sqrt(c) * (S - S.mean(axis=1, keepdims=True)), np.sqrt(c) * (T - T.mean(axis=1, keepdims=True)), total])
        norm_min = np.linalg.norm(E.T @ E)
        norm_max = np.sqrt(np.sum((pairs.T @ pairs) ** 2) - 2.0 * np.sum((pairs.T @ E) ** 2) + norm_min**2)
        return np.sqrt(1.0 / norm_min + self.apart / norm_max) * E, np.sqrt(self.apart / norm_max) * pairs

"""Learn from features of augmented copies: the frozen stages ran on each copy once, and a head is fitted on a case and its copies together.

Copies lie in their case's row, (n, 1 + k, d), so that whatever splits cases splits their copies alike. Whether mirrored copies may be learned from is decided
by the training cases: where the left and the right side of an image tell its class, they must not.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from headstart.core import Source
from headstart.methods.data.enlarged import Cases, Enlarged, EnlargedClassifier, EnlargedRegressor, Splits, has_copies
from headstart.methods.data.placed import OnFeatures
from headstart.methods.features.ridge import ALPHAS, RidgeLOO
from headstart.methods.method import View, knob

AUTO, NEVER, ALWAYS = "auto", "never", "always"


class _WithCopies(Enlarged):
    def enlarge(self, X: np.ndarray, y: np.ndarray, dice: np.random.Generator) -> Cases:
        if X.ndim == 2:
            return Cases(X, y)
        return Cases(X.reshape(-1, X.shape[2]), np.repeat(y, X.shape[1]))


class AugmentedRidge(_WithCopies, EnlargedClassifier):
    """Ridge on cases and their copies, all counting alike within a class.

    Parameters
    ----------
    mirrored : how many of the copies, the last ones, are mirror images; the first of them is that of the case itself
    flip : "always" learns from them, "never" does not, and "auto" asks the training cases: in inner folds, a head on the cases themselves names cases
        that it has not seen and their mirror images. Where it is right about the mirror images less often, by more than one standard error of
        the paired difference, they are left out
    alphas, seed : as in :class:`~headstart.methods.data.enlarged.EnlargedClassifier`

    Attributes
    ----------
    flips_ : whether mirror images were learned from
    alike_ : mean and standard error of how much more often the head was right about cases than about their mirror images; ``None`` where that was not asked

    Examples
    --------
    >>> X = np.array([[[0.0], [0.5]], [[1.0], [0.6]], [[7.0], [6.8]], [[8.0], [7.5]]])  # four cases with a copy each
    >>> model = AugmentedRidge().fit(X, ["a", "a", "b", "b"])
    >>> model.predict([[0.5], [7.2]]).tolist(), model.made_
    (['a', 'b'], 4)
    """

    def __init__(self, *, mirrored: int = 0, flip: str = AUTO, alphas: tuple[float, ...] = ALPHAS, seed: int = 0) -> None:
        super().__init__(alphas=alphas, seed=seed)
        self.mirrored = mirrored
        self.flip = flip

    def look(self, X: np.ndarray, y: np.ndarray, splits: Splits) -> None:
        self.alike_ = mirrored_alike(X[:, 0], X[:, -self.mirrored], y, splits) if self.mirrored and self.flip == AUTO and splits else None
        self.flips_ = bool(self.mirrored) and self.flip != NEVER and (self.alike_ is None or self.alike_[0] <= self.alike_[1])

    def enlarge(self, X: np.ndarray, y: np.ndarray, dice: np.random.Generator) -> Cases:
        return super().enlarge(X if self.flips_ or not self.mirrored else X[:, : -self.mirrored], y, dice)

    def _linear(self, X: Any) -> np.ndarray:
        if has_copies(X) and self.mirrored and not self.flips_:
            X = X[:, : -self.mirrored]
        return super()._linear(X)


class AugmentedRidgeRegressor(_WithCopies, EnlargedRegressor):
    """The same for numbers, of texts and of rows, which have no mirror images.

    Examples
    --------
    >>> X = np.array([[[0.0], [0.0]], [[1.0], [1.0]], [[2.0], [2.0]]])
    >>> AugmentedRidgeRegressor().fit(X, [1.0, 3.0, 5.0]).predict([[1.5]]).round(1).tolist()
    [4.0]
    """


def mirrored_alike(own: np.ndarray, mirror: np.ndarray, codes: np.ndarray, splits: Splits) -> tuple[float, float]:
    """Return by how much more often a head on cases is right about unseen cases (n, d) than about their mirror images (n, d), -1..1, and its standard error.

    Classes count alike. In every split the head is fitted on the training cases themselves, so that it has seen no mirror image at all.
    """
    more = np.zeros(len(codes))
    for train, test in splits:
        head = RidgeLOO().fit(own[train], codes[train])
        right = head.predict(np.vstack([own[test], mirror[test]])) == np.tile(codes[test], 2)
        more[test] = right[: len(test)].astype(float) - right[len(test) :]
    weights = 1.0 / np.bincount(codes)[codes]
    mean = float(np.average(more, weights=weights))
    return mean, float(np.sqrt(np.sum(np.square(weights * (more - mean)))) / weights.sum())


@dataclass(frozen=True)
class _Augment(OnFeatures):
    """How many copies there are, and whether they are predicted from."""

    name: ClassVar[str] = "augment"

    copies: int = knob(4, choices=(2, 4, 8))
    average: bool = knob(False, choices=(False, True))

    def policies(self) -> tuple[str, ...]:
        """Return the policy of every copy."""
        raise NotImplementedError

    def view(self, source: Source | None) -> View:
        return dataclasses.replace(super().view(source), copies=self.policies())

    def served(self, source: Source | None) -> View:
        return self.view(source) if self.average else super().served(source)


@dataclass(frozen=True)
class AugmentImage(_Augment):
    """A head on features of images and of their augmented copies.

    Parameters
    ----------
    policy : "crop" (half of the area or more), "crop+colour", "trivial" (TrivialAugment), "rand" (RandAugment) or "none" (mirror images alone)
    flip : "auto" asks the training cases whether mirror images are classified alike, and learns from them if so; "always" and "never" do not ask
    copies : of each image; with mirror images twice as many and one. Each costs a pass through the frozen stages, once
    average : predict the mean over a new image and its copies, which costs as many passes for each
    back, span : where the features come from, as in :class:`~headstart.methods.features.probe.Probe`

    Examples
    --------
    >>> AugmentImage(copies=2).policies()
    ('crop', 'crop', 'mirror', 'crop+mirror', 'crop+mirror')
    """

    needs: ClassVar[frozenset[str]] = frozenset({"images", "classes"})
    paper: ClassVar[str] = "Müller & Hutter 2021, TrivialAugment: tuning-free yet state-of-the-art data augmentation"
    limits: ClassVar[str] = "a policy that changes what tells the classes apart harms; features that hardly see the change gain nothing"

    policy: str = knob("crop", choices=("crop", "crop+colour", "trivial", "rand", "none"))
    flip: str = knob(AUTO, choices=(AUTO, NEVER, ALWAYS))

    def policies(self) -> tuple[str, ...]:
        plain = () if self.policy == "none" else (self.policy,) * self.copies
        return plain if self.flip == NEVER else (*plain, "mirror", *(f"{one}+mirror" for one in plain))

    def estimator(self, *, seed: int) -> Any:
        copies = self.policies()
        return AugmentedRidge(mirrored=sum("mirror" in policy for policy in copies), flip=self.flip, seed=seed)


@dataclass(frozen=True)
class AugmentText(_Augment):
    """A head on features of texts and of their edited copies: no word is put in that was not there.

    Parameters
    ----------
    policy : "delete" (a tenth of the words), "swap" (a tenth of them, in pairs), "delete+swap" or "mask" (15 % of the tokens)
    copies, average, back, span : as in :class:`AugmentImage`

    Examples
    --------
    >>> AugmentText(copies=2).policies()
    ('delete', 'delete')
    """

    needs: ClassVar[frozenset[str]] = frozenset({"texts", "classes"})
    paper: ClassVar[str] = "Wei & Zou 2019, EDA: easy data augmentation techniques for boosting performance on text classification tasks"
    limits: ClassVar[str] = "a deleted word may have been the one that tells; encoders that know the language gain little"

    policy: str = knob("delete", choices=("delete", "swap", "delete+swap", "mask"))

    def policies(self) -> tuple[str, ...]:
        return (self.policy,) * self.copies

    def estimator(self, *, seed: int) -> Any:
        return AugmentedRidge(seed=seed)


@dataclass(frozen=True)
class AugmentTextRegressor(AugmentText):
    """The same for numbers."""

    needs: ClassVar[frozenset[str]] = frozenset({"texts", "numbers"})

    def estimator(self, *, seed: int) -> Any:
        return AugmentedRidgeRegressor(seed=seed)


@dataclass(frozen=True)
class AugmentTable(_Augment):
    """A head on features of rows and of their disturbed copies.

    Parameters
    ----------
    policy : "noise" (on numbers, of a tenth of a column's deviation), "absent" (a tenth of the values is missing) or "noise+absent"
    copies, average, back, span : as in :class:`AugmentImage`

    Examples
    --------
    >>> AugmentTable(copies=2).policies()
    ('noise', 'noise')
    """

    needs: ClassVar[frozenset[str]] = frozenset({"tables", "classes"})
    paper: ClassVar[str] = "Bishop 1995, Training with noise is equivalent to Tikhonov regularization"
    limits: ClassVar[str] = "to a linear head noise is one more penalty, and its own is tuned already"

    policy: str = knob("noise", choices=("noise", "absent", "noise+absent"))

    def policies(self) -> tuple[str, ...]:
        return (self.policy,) * self.copies

    def estimator(self, *, seed: int) -> Any:
        return AugmentedRidge(seed=seed)


@dataclass(frozen=True)
class AugmentTableRegressor(AugmentTable):
    """The same for numbers."""

    needs: ClassVar[frozenset[str]] = frozenset({"tables", "numbers"})

    def estimator(self, *, seed: int) -> Any:
        return AugmentedRidgeRegressor(seed=seed)

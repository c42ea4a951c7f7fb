"""One call for the data view: every test between two data sets, as plain numbers and one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.core import InputError
from headstart.similarity.data import KID, Frechet, frechet_test, kid
from headstart.similarity.label_shift import LabelShift, classes_shared, label_shift
from headstart.similarity.marginals import FeatureTests, MomentShifts, feature_tests, moment_shifts
from headstart.similarity.two_sample import MOST, PAIRED, Pool, TwoSample, classifier_test, energy, mmd, one_thread, permutation_test, pool, sliced_wasserstein

FEWEST = 10  # cases of each; below, no test of this file finds anything
SLOW = 99  # permutations of what is computed anew for each
ALPHA = 0.05
DEGREES = ((0.6, "slightly"), (0.75, "moderately"), (0.9, "strongly"), (math.inf, "very strongly"))  # differing, up to an AUC


@dataclass(frozen=True)
class DomainComparison:
    """What two data sets differ in, target first: plain numbers, which go to JSON by ``dataclasses.asdict``.

    Parameters
    ----------
    n, m : cases given; each test states how many it used
    features : columns given; those that do not move are left out of ``moments`` and ``tests``, which count the rest
    classifier : the main test; the others say where and how the two differ. Each alone finds something in 5 % of pairs that are alike, all together in more
    mmd, energy, sliced, frechet, kid, moments, tests : see :mod:`headstart.similarity.data` and its neighbours
    labels : ``None`` unless both sides have labels and names of classes
    classes_shared : share of the target's classes that the source has by name; ``None`` unless both name theirs
    """

    n: int
    m: int
    features: int
    classifier: TwoSample
    mmd: TwoSample
    energy: TwoSample
    sliced: TwoSample
    frechet: Frechet
    kid: KID
    moments: MomentShifts
    tests: FeatureTests
    labels: LabelShift | None
    classes_shared: float | None

    def in_words(self) -> str:
        """Return one sentence for people, which claims no more than the tests found."""
        parts = [self._classifier_in_words(), *self._features_in_words(), *self._labels_in_words()]
        return "; ".join(parts) + "."

    def _classifier_in_words(self) -> str:
        found = self.classifier
        pairs = f"in {_share(found.value)} of pairs (chance: 50%, p = {found.p:.3f})"
        if found.p <= ALPHA:
            degree = next(word for limit, word in DEGREES if found.value < limit)
            return f"A classifier tells the two apart {pairs}: they differ {degree}, which need not matter to the task"
        sizes = f"{found.n:,} and {found.m:,} cases"
        other = [f"{name} (p = {test.p:.3f})" for name, test in (("MMD", self.mmd), ("energy distance", self.energy)) if test.p <= ALPHA]
        if other:
            return f"A classifier on {sizes} does not tell the two apart beyond chance, {pairs}, but they do differ by {' and '.join(other)}"
        return f"A classifier on {sizes} does not tell the two apart beyond chance, {pairs}, which does not prove that they are alike"

    def _features_in_words(self) -> list[str]:
        tests = self.tests
        if tests.share == 0.0:
            return [f"none of {tests.features:,} features differs by itself, as far as {tests.n:,} and {tests.m:,} cases can tell"]
        return [f"{_share(tests.share)} of {tests.features:,} features differ by themselves"]

    def _labels_in_words(self) -> list[str]:
        if self.classes_shared == 0.0:
            return ["they share no class by name"]
        parts = []
        if self.classes_shared is not None and self.classes_shared < 1.0:
            parts.append(f"the source knows {_share(self.classes_shared)} of the target's classes by name")
        if self.labels is not None and self.labels.p > ALPHA:
            parts.append(f"class frequencies differ by no more than chance may do (p = {self.labels.p:.3f})")
        elif self.labels is not None:
            low, high = self.labels.interval
            parts.append(f"class frequencies differ by {_share(self.labels.value)} (90% interval {low:.0%} to {high:.0%})")
        return parts


def compare(
    x: np.ndarray,
    xs: np.ndarray,
    *,
    y: np.ndarray | None = None,
    ys: np.ndarray | None = None,
    labels: Sequence[str] = (),
    source_labels: Sequence[str] = (),
    seed: int,
    pools: tuple[Pool, Pool] | None = None,
) -> DomainComparison:
    """Compare target x (n, d) with source xs (m, d), and their labels where both have some. n and m may differ.

    At most 2,000 cases of each are read for single features and 1,000 for the rest, drawn with the seed. About 3 s on one core for that many cases of
    1,280 features.

    Parameters
    ----------
    y, ys : (n,), (m,) class codes into ``labels`` and ``source_labels``, which name the classes; ``source_labels`` may be left out where they are the same
    pools : what :func:`headstart.similarity.data.drawn` and ``paired`` drew of x and xs with that seed, where measures have made them; ``None`` draws

    Raises
    ------
    InputError
        x or xs is no table of finite numbers, they differ in columns, or one has under 10 rows; codes without names.

    >>> dice = np.random.default_rng(0)
    >>> print(compare(dice.standard_normal((40, 2)), dice.standard_normal((50, 2)) + 9.0, seed=0).in_words())
    A classifier tells the two apart in 100% of pairs (chance: 50%, p = 0.001): they differ very strongly, which need not matter to the task; \
100% of 2 features differ by themselves.
    """
    x, xs = np.asarray(x), np.asarray(xs)
    _check_features(x, xs)
    names, source_names = tuple(labels), tuple(source_labels or labels)
    _check_labels("y", y, len(x), names)
    _check_labels("ys", ys, len(xs), source_names)
    shift = None
    if y is not None and ys is not None:
        shift = label_shift(np.asarray(y), np.asarray(ys), labels=names, source_labels=source_names, seed=seed)
    with one_thread():
        rows = pool(x, xs, seed=seed, most=MOST) if pools is None else pools[0]
        few = rows.first(PAIRED) if pools is None else pools[1]
        return DomainComparison(
            n=len(x),
            m=len(xs),
            features=x.shape[1],
            classifier=classifier_test(few),
            mmd=permutation_test(mmd, few),
            energy=permutation_test(energy, few),
            sliced=permutation_test(sliced_wasserstein, few, permutations=SLOW),
            frechet=frechet_test(few, permutations=SLOW),
            kid=kid(few),
            moments=moment_shifts(rows),
            tests=feature_tests(rows),
            labels=shift,
            classes_shared=classes_shared(labels, source_labels) if labels and source_labels else None,
        )


def _share(value: float) -> str:
    """Return percent that do not round to none or all unless it is none or all."""
    if 0.0 < value < 0.005:
        return "under 1%"
    return "over 99%" if 0.995 < value < 1.0 else f"{value:.0%}"


def _check_features(x: np.ndarray, xs: np.ndarray) -> None:
    for name, a in (("x", x), ("xs", xs)):
        if a.ndim != 2 or not np.issubdtype(a.dtype, np.number):
            raise InputError(
                f"{name} is an array of {a.dtype} of shape {a.shape}; numbers of shape (cases, features) are needed. Flatten or encode the inputs."
            )
        if len(a) < FEWEST:
            raise InputError(f"{name} has {len(a)} rows; at least {FEWEST} are needed to compare two data sets. Add cases.")
        finite = np.isfinite(a).all(axis=1)
        if not finite.all():
            raise InputError(
                f"{name} holds NaN or infinity in {int((~finite).sum())} rows (first: row {int(finite.argmin())}). Fill them in, or drop the rows."
            )
    if x.shape[1] != xs.shape[1]:
        raise InputError(f"x has {x.shape[1]} features and xs {xs.shape[1]}; they must be the same features. Make both with the same extractor.")


def _check_labels(what: str, codes: np.ndarray | None, rows: int, names: tuple[str, ...]) -> None:
    if codes is None:
        return
    if len(codes) != rows:
        raise InputError(f"{what} has {len(codes)} labels for {rows} rows. Give one for each.")
    codes = np.asarray(codes)
    if not np.issubdtype(codes.dtype, np.integer) or codes.min() < 0 or codes.max() >= len(names):
        raise InputError(f"{what} holds {codes.dtype} from {codes.min()} to {codes.max()}; codes from 0 into the {len(names)} names of its classes are needed.")

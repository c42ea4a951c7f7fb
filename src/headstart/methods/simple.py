"""Baselines: classical models that use no pretrained network, tuned as hard as the transfer arms, on the same folds.

One class per modality. ``kind`` says whether labels or numbers are predicted; "linear" is then a logistic or a ridge model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from headstart.core import Source
from headstart.methods.features.logistic import LogisticPath
from headstart.methods.features.svm import KernelSVM, Platt
from headstart.methods.method import Arm, Closed, Level, View, knob

Kind = Literal["classification", "regression"]
TREES = 300
ALPHAS = tuple(10.0**k for k in range(-3, 6))


@dataclass(frozen=True)
class SimpleImage(Closed):
    """A classical model on features of the raw image.

    Parameters
    ----------
    features : "pixels" (32 x 32 colour) or "handmade" (histogram of oriented gradients, grid colour statistics, histograms)
    model : "linear" (whole penalty path), "svm" (Gaussian kernel) or "forest" (extremely randomised trees; Geurts et al. 2006)
    strength : the SVM's C; the linear path finds its own and the forest needs none
    trees : of the forest; 300, from where more change little

    Examples
    --------
    >>> SimpleImage("handmade", "forest").view(None).kind
    'handmade'
    """

    name: ClassVar[str] = "simple"
    arm: ClassVar[Arm] = "baseline"
    level: ClassVar[Level] = "none"
    paper: ClassVar[str] = "Dalal & Triggs 2005, Histograms of oriented gradients"
    limits: ClassVar[str] = "sees no more than pixels, gradients and colours"

    features: str = knob("handmade", choices=("handmade", "pixels"))
    model: str = knob("svm", choices=("svm", "linear", "forest"))
    strength: float = knob(3.0, choices=(0.3, 3.0, 30.0))
    kind: Kind = "classification"
    trees: int = TREES

    def view(self, source: Source | None) -> View:
        return View("handmade" if self.features == "handmade" else "pixels")

    def estimator(self, *, seed: int) -> Any:
        return _model(self.model, kind=self.kind, strength=self.strength, seed=seed, trees=self.trees)


@dataclass(frozen=True)
class SimpleText(Closed):
    """A linear model on TF-IDF, which is hard to beat where topics are told by words (Wang & Manning 2012).

    Parameters
    ----------
    features : "words" (single words and pairs) or "chars" (2 to 5 letters within words: robust to spelling and word forms)
    model : "linear" (logistic or ridge), "svm" (linear, with Platt's probabilities; for numbers a linear support vector regression)
    strength : the inverse penalty C

    Examples
    --------
    >>> texts = ["good film", "fine film", "bad film", "poor film"] * 3
    >>> SimpleText().estimator(seed=0).fit(texts, [1, 1, 0, 0] * 3).predict(["good", "bad"]).tolist()
    [1, 0]
    """

    name: ClassVar[str] = "simple"
    arm: ClassVar[Arm] = "baseline"
    level: ClassVar[Level] = "none"
    paper: ClassVar[str] = "Joachims 1998, Text categorization with support vector machines"
    limits: ClassVar[str] = "knows words, not what they mean"

    features: str = knob("words", choices=("words", "chars"))
    model: str = knob("linear", choices=("linear", "svm"))
    strength: float = knob(10.0, choices=(0.3, 1.0, 3.0, 10.0, 30.0, 100.0))
    kind: Kind = "classification"

    def view(self, source: Source | None) -> View:
        return View("items")

    def estimator(self, *, seed: int) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.svm import LinearSVC, LinearSVR

        # why: words of one letter carry meaning in short texts and in other languages; scikit-learn's default drops them
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", max_features=50_000)
        chars = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=50_000)
        bag = words if self.features == "words" else chars
        if self.kind == "regression":
            return make_pipeline(bag, Ridge(1.0 / self.strength) if self.model == "linear" else LinearSVR(C=self.strength, max_iter=20_000, random_state=seed))
        if self.model == "linear":
            return make_pipeline(bag, LogisticRegression(C=self.strength, class_weight="balanced", max_iter=1000))
        return make_pipeline(bag, Platt(LinearSVC(C=self.strength, random_state=seed), seed=seed))


@dataclass(frozen=True)
class SimpleTable(Closed):
    """A classical model on columns; categories become one column each, missing numbers the median.

    Parameters
    ----------
    model : "boosting" (histogram gradient boosting), "linear" (whole penalty path), "svm" (Gaussian kernel) or "forest"
    strength : the SVM's C

    Examples
    --------
    >>> rows = [{"a": float(i), "b": "x"} for i in range(9)]
    >>> SimpleTable("linear", kind="regression").estimator(seed=0).fit(rows, range(9)).predict([{"a": 4.0, "b": "x"}]).round(1).tolist()
    [4.0]
    """

    name: ClassVar[str] = "simple"
    arm: ClassVar[Arm] = "baseline"
    level: ClassVar[Level] = "none"
    paper: ClassVar[str] = "Friedman 2001, Greedy function approximation"
    limits: ClassVar[str] = "knows this table alone"

    model: str = knob("boosting", choices=("boosting", "linear", "svm", "forest"))
    strength: float = knob(3.0, choices=(0.3, 3.0, 30.0))
    kind: Kind = "classification"

    def view(self, source: Source | None) -> View:
        return View("items")

    def estimator(self, *, seed: int) -> Any:
        from sklearn.feature_extraction import DictVectorizer
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline

        steps = [DictVectorizer(sparse=False), SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)]
        return make_pipeline(*steps, _model(self.model, kind=self.kind, strength=self.strength, seed=seed))


def _model(name: str, *, kind: Kind, strength: float, seed: int, trees: int = TREES) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    numbers = kind == "regression"
    if name == "linear":
        return make_pipeline(StandardScaler(), RidgeCV(ALPHAS)) if numbers else LogisticPath(seed=seed)
    if name == "forest":
        forest = {"n_estimators": trees, "n_jobs": 2, "random_state": seed}
        return ExtraTreesRegressor(**forest) if numbers else ExtraTreesClassifier(class_weight="balanced", **forest)
    if name == "boosting":
        return HistGradientBoostingRegressor(random_state=seed) if numbers else HistGradientBoostingClassifier(class_weight="balanced", random_state=seed)
    if numbers:
        from sklearn.compose import TransformedTargetRegressor

        return TransformedTargetRegressor(make_pipeline(StandardScaler(), SVR(C=strength)), transformer=StandardScaler())
    return KernelSVM(C=strength, seed=seed)


SIMPLE: dict[str, type[SimpleImage] | type[SimpleText] | type[SimpleTable]] = {"image": SimpleImage, "text": SimpleText, "tabular": SimpleTable}

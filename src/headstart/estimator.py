"""Transfer as a scikit-learn estimator: images in, labels out, usable in ``Pipeline``, ``cross_val_score`` and ``GridSearchCV``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from headstart.activations.store import Store, default_root
from headstart.core import InputError
from headstart.methods import Probe
from headstart.modality.image import digest
from headstart.sources import get
from headstart.views import Views


class TransferClassifier(ClassifierMixin, BaseEstimator):
    """Frozen features of a pretrained source, and a head fitted on them.

    Parameters
    ----------
    source : str, default="efficientnet_lite0"
        Name of a source; ``headstart sources`` lists them. Lite0 is the quickest one that packages ship.
    head : {"ridge", "logistic", "knn"}, default="ridge"
        Ridge finds its penalty by exact leave-one-out in one decomposition, so it is the cheapest.
    back : int, default=0
        How many stages before the last one the features come from.
    span : int, default=1
        How many consecutive stages are laid side by side.
    random_state : int, default=0
        Seed of the logistic head's inner folds.

    Attributes
    ----------
    classes_ : ndarray of shape (c,)
    head_ : the fitted scikit-learn classifier on features

    Notes
    -----
    ``X`` is a list of paths, or an array of images (n, h, w, c) of uint8, or of floats 0..1. Activations come from the store, so
    cross-validation runs the network once per image.

    Examples
    --------
    >>> TransferClassifier(head="knn").get_params()["head"]
    'knn'
    """

    def __init__(self, source: str = "efficientnet_lite0", *, head: str = "ridge", back: int = 0, span: int = 1, random_state: int = 0) -> None:
        self.source = source
        self.head = head
        self.back = back
        self.span = span
        self.random_state = random_state

    def fit(self, X: Sequence[Any] | np.ndarray, y: Sequence[Any]) -> TransferClassifier:
        """Fit the head on the features of ``X`` (n images) with labels ``y`` (n,)."""
        items, targets = _images(X), np.asarray(y)
        if len(items) != len(targets):
            raise InputError(f"X holds {len(items)} images but y {len(targets)} labels. Give one label for each image.")
        check_classification_targets(targets)
        probe = Probe(head=self.head, back=self.back, span=self.span)
        self.head_ = probe.estimator(seed=self.random_state).fit(self._features(items), targets)
        self.classes_ = self.head_.classes_
        return self

    def predict_proba(self, X: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Return class probabilities (n, c), columns in the order of ``classes_``."""
        check_is_fitted(self)
        return np.asarray(self.head_.predict_proba(self._features(_images(X))))

    def predict(self, X: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Return the most probable label of each image, (n,)."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def _features(self, items: Sequence[Any]) -> np.ndarray:
        found = get(self.source)
        view = Probe(head=self.head, back=self.back, span=self.span).view(found)
        return np.asarray(Views(items, [digest(item) for item in items], {found.name: found}, Store(default_root())).array(view))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags


def _images(x: Sequence[Any] | np.ndarray) -> list[Any]:
    """Return one item per image; an array must be (n, h, w, c) or (n, h, w), or hold paths."""
    if isinstance(x, np.ndarray) and x.dtype.kind not in "OUS" and x.ndim not in (3, 4):
        raise InputError(f"X has shape {x.shape}; images are (n, h, w, c) or (n, h, w), or a list of n paths. Reshape it.")
    if len(x) == 0:
        raise InputError("X holds no images. Give at least one for each class.")
    return [str(item) if isinstance(item, np.str_) else item for item in x]

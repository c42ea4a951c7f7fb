"""What heads that are tried by name have in common: which stages' features they see, and what is done to those first."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from headstart.core import Source
from headstart.methods.features.probe import view_of
from headstart.methods.features.transforms import TRANSFORMS, after
from headstart.methods.method import Arm, Closed, Level, View, knob


@dataclass(frozen=True)
class Head(Closed):
    """A head on a frozen source's features.

    Parameters
    ----------
    back : how many stages before the last one the features come from; 0 is the final feature
    span : how many consecutive stages, counted back from there, are laid side by side
    transform : what is done to the features first, see :func:`headstart.methods.features.transforms.steps`
    """

    arm: ClassVar[Arm] = "frozen"
    level: ClassVar[Level] = "feature"

    back: int = knob(0, choices=(0, 1, 2, 3))
    span: int = knob(1, choices=(1, 2, 4))
    transform: str = knob("standard", choices=TRANSFORMS)

    def view(self, source: Source | None) -> View:
        return view_of(source, back=self.back, span=self.span)

    def estimator(self, *, seed: int) -> Any:
        return after(self.transform, self.head(seed=seed))

    @abstractmethod
    def head(self, *, seed: int) -> Any:
        """Return what comes behind the transform: an unfitted scikit-learn classifier with ``predict_proba``, or a regressor."""

"""Fine-tune on data that are mixed or augmented: LP-FT, whose batches hold mixed cases or stored copies."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from headstart.core import Source
from headstart.methods.method import Level, View, knob
from headstart.methods.model.fine_tune import FineTune


@dataclass(frozen=True)
class MixUp(FineTune):
    """LP-FT on means of two cases and of their targets; above a cut this is manifold mixup (Verma et al. 2019).

    Parameters
    ----------
    mixup : alpha of Beta(alpha, alpha), from which shares are drawn; .2 in the paper
    depth, rate, decay, steps, smoothing, dropout : as in :class:`~headstart.methods.model.fine_tune.FineTune`

    Examples
    --------
    >>> MixUp(mixup=0.4).settings
    {'mixup': 0.4}
    """

    name: ClassVar[str] = "mixup"
    level: ClassVar[Level] = "data"
    needs: ClassVar[frozenset[str]] = frozenset({"maps or columns"})
    paper: ClassVar[str] = "Zhang et al. 2018, mixup: beyond empirical risk minimization"
    limits: ClassVar[str] = "50 steps from a probe's head are few for a loss that is this noisy"

    mixup: float = knob(0.2, choices=(0.1, 0.2, 0.4, 1.0))

    @property
    def settings(self) -> dict[str, Any]:
        return {"mixup": self.mixup}


@dataclass(frozen=True)
class CutMix(FineTune):
    """LP-FT on activations in which a rectangle is another case's, with a target mixed by area.

    Parameters
    ----------
    cutmix : alpha of Beta(alpha, alpha), from which areas are drawn; 1 in the paper
    depth, rate, decay, steps, smoothing, dropout : as in :class:`~headstart.methods.model.fine_tune.FineTune`

    Examples
    --------
    >>> CutMix().settings
    {'cutmix': 1.0}
    """

    name: ClassVar[str] = "cutmix"
    level: ClassVar[Level] = "data"
    needs: ClassVar[frozenset[str]] = frozenset({"maps"})
    paper: ClassVar[str] = "Yun et al. 2019, CutMix: regularization strategy to train strong classifiers with localizable features"
    limits: ClassVar[str] = "above a late cut a place is worth half of the image"

    cutmix: float = knob(1.0, choices=(0.3, 1.0))

    @property
    def settings(self) -> dict[str, Any]:
        return {"cutmix": self.cutmix}


@dataclass(frozen=True)
class FineTuneViews(FineTune):
    """LP-FT on stored activations of images and of their augmented copies: each copy ran through the frozen stages once, and no epoch augments again.

    Parameters
    ----------
    policy : of the copies, as in :class:`~headstart.methods.data.augmented.AugmentImage`; "crop+flip" also mirrors by chance, which nothing here asks the
        labels about, so that the search has to find it better
    copies : of each image; each takes as much room as the image's own activations
    depth, rate, decay, steps, smoothing, dropout : as in :class:`~headstart.methods.model.fine_tune.FineTune`

    Examples
    --------
    >>> from headstart.methods.method import space
    >>> space(FineTuneViews())["copies"].choices
    (1, 3, 7)
    """

    name: ClassVar[str] = "fine-tune-views"
    level: ClassVar[Level] = "data"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    paper: ClassVar[str] = "Müller & Hutter 2021, TrivialAugment: tuning-free yet state-of-the-art data augmentation"
    limits: ClassVar[str] = "as many augmented looks as there are copies, not a new one in every epoch"

    policy: str = knob("crop", choices=("crop", "crop+flip", "crop+colour", "trivial"))
    copies: int = knob(3, choices=(1, 3, 7))

    def view(self, source: Source | None) -> View:
        place = super().view(source)
        return dataclasses.replace(place, copies=(self.policy,) * self.copies) if place.kind == "raw" else place

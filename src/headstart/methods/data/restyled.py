"""Style mixing between domains: copies of the target's images in the style of a source's, which may be without labels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from headstart.core import Source
from headstart.methods.data.augmented import AugmentedRidge
from headstart.methods.data.placed import OnFeatures
from headstart.methods.method import View, knob


@dataclass(frozen=True)
class Restyle(OnFeatures):
    """A head on features of images and of their copies in the style of images of another domain.

    Parameters
    ----------
    style : "fourier" swaps amplitudes of low frequencies, "tone" means and deviations of the colours; by a share that is drawn, from an image that is drawn
    copies : of each image
    back, span : as in :class:`~headstart.methods.features.probe.Probe`

    Examples
    --------
    >>> Restyle(copies=2).view(Source("s", stages=("a",))).copies
    ('fourier', 'fourier')
    """

    name: ClassVar[str] = "restyle"
    needs: ClassVar[frozenset[str]] = frozenset({"images", "classes", "source.data"})
    paper: ClassVar[str] = "Yang & Soatto 2020, FDA: Fourier domain adaptation for semantic segmentation"
    limits: ClassVar[str] = "harms where colour or light tells the classes apart; helps where new images will have other styles than those that are labelled"

    style: str = knob("fourier", choices=("fourier", "tone"))
    copies: int = knob(4, choices=(2, 4, 8))

    def view(self, source: Source | None) -> View:
        return dataclasses.replace(super().view(source), copies=(self.style,) * self.copies)

    def estimator(self, *, seed: int) -> Any:
        return AugmentedRidge(seed=seed)

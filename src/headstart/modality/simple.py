"""Features that need no pretrained network, for the baseline: raw pixels, and hand-made descriptors of shape, texture and colour.

Histograms of oriented gradients (Dalal & Triggs 2005) from scikit-image, colour statistics on a grid, and intensity histograms.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version as installed
from typing import Any

import numpy as np
from PIL import Image

from headstart.modality.image import mapped, read

HOG_SIDE = 64
GRID = 4
BINS = 16


def version() -> dict[str, str]:
    """Return the versions that decide these numbers."""
    return {name: installed(name) for name in ("numpy", "pillow", "scikit-image", "torchvision")}


def pixels(items: Sequence[Any], *, side: int = 32) -> np.ndarray:
    """Return (n, 3 side side) float32, 0..1: each image squeezed to a small square."""
    return np.stack(list(mapped(lambda item: _squeezed(item, side).ravel(), items)))


def handmade(items: Sequence[Any]) -> np.ndarray:
    """Return (n, d) float32: oriented gradients at 64 x 64, mean and deviation of each colour on a 4 x 4 grid, and its histogram."""
    return np.stack(list(mapped(_describe, items)))


def _squeezed(item: Any, side: int) -> np.ndarray:
    small = Image.fromarray(read(item)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


def _describe(item: Any) -> np.ndarray:
    from skimage.feature import hog

    colour = _squeezed(item, HOG_SIDE)
    gradients = hog(colour.mean(axis=2), orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2), feature_vector=True)
    cells = colour.reshape(GRID, HOG_SIDE // GRID, GRID, HOG_SIDE // GRID, 3)
    grid = [cells.mean(axis=(1, 3)).ravel(), cells.std(axis=(1, 3)).ravel()]
    histograms = [np.histogram(colour[..., c], BINS, (0.0, 1.0))[0] / colour[..., c].size for c in range(3)]
    return np.concatenate([gradients, *grid, *histograms]).astype(np.float32)

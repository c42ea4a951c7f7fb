"""Style of images: what another image of another domain lends without its content, by the amplitudes of low frequencies or by the tone of the colours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

STYLES = ("fourier", "tone")
LOW = 0.05  # of the image's side: frequencies up to there are swapped; from .1 on edges of the other image show (Yang & Soatto 2020, beta)
FLAT = 1.0  # level of 255: a channel that varies less has no contrast to pass on


def fourier(pixels: Tensor, other: Tensor, share: float) -> Tensor:
    """Return uint8 (c, h, w) with the amplitudes of its low frequencies moved by ``share``, 0..1, towards those of the other (c, h, w); phases stay.

    FDA, Yang & Soatto 2020, eq. 3; the mixing by a share is that of Xu et al. 2021.

    >>> image = torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4)
    >>> torch.equal(fourier(image, image, 1.0), image)
    True
    """
    mine, theirs = (torch.fft.fft2(one.double()) for one in (pixels, other))
    rows, columns = (torch.fft.fftfreq(n).abs() <= LOW for n in pixels.shape[1:])
    low = rows[:, None] & columns[None]
    amplitude = torch.where(low, mine.abs().lerp(theirs.abs(), share), mine.abs())
    return _bytes(torch.fft.ifft2(torch.polar(amplitude, mine.angle())).real)


def tone(pixels: Tensor, other: Tensor, share: float) -> Tensor:
    """Return uint8 (c, h, w) with each channel's mean and deviation moved by ``share``, 0..1, towards those of the other (c, h, w).

    The statistics of AdaIN (Huang & Belongie 2017), on pixels.

    >>> flat = torch.full((1, 2, 2), 100, dtype=torch.uint8)
    >>> tone(flat, flat + 50, 0.5).ravel().tolist()
    [125, 125, 125, 125]
    """
    (mean, spread), (their_mean, their_spread) = (_tone_of(one.double()) for one in (pixels, other))
    scale = torch.where(spread > FLAT, spread.lerp(their_spread, share) / spread.clamp_min(FLAT), torch.ones_like(spread))
    return _bytes((pixels.double() - mean) * scale + mean.lerp(their_mean, share))


def restyled(pixels: Tensor, other: Tensor, style: str, dice: np.random.Generator) -> Tensor:
    """Return an image in the style of the other, by a share that is drawn."""
    return (fourier if style == "fourier" else tone)(pixels, other, float(dice.random()))


def _tone_of(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.mean(dim=(1, 2), keepdim=True), values.std(dim=(1, 2), keepdim=True, correction=0)


def _bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)

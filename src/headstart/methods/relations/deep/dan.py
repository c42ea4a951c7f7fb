"""Mean embeddings brought together: of features (DAN), and of features and predictions jointly (JAN)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from headstart.core import Batch, Net
from headstart.distance import gaussian_kernel, squared_distances
from headstart.methods.method import knob
from headstart.methods.needs import UNLABELLED
from headstart.methods.relations.deep.deep import Deep, Seen

OCTAVES = (-3, -2, -1, 0, 1)  # kernels of 2^k times the mean squared distance, as in the authors' code (thuml)
OF_PREDICTIONS = 0.92  # deviation of the one kernel on predictions in JAN: its square is 1.69 / 2, the authors' fixed scale


@dataclass(frozen=True)
class DAN(Deep):
    """Bring the distributions of features near, by the maximum mean discrepancy under five Gaussian kernels (Long et al. 2015, sec. 3).

    Repairs a shift of what the inputs look like while the classes keep their shares. In a batch of 32 and 32 every pair is counted, the unbiased form.

    Parameters
    ----------
    depth, width, rate, steps : as in :class:`Deep`
    weight : of the discrepancy; the mean of kernels times 5 is their sum, which the authors' code weighs with 1

    Examples
    --------
    >>> from headstart.core import Source
    >>> view = DAN().view(Source("s", stages=("a", "b")))
    >>> view.kind, view.cuts
    ('pooled', (2,))
    """

    name: ClassVar[str] = "dan"
    paper: ClassVar[str] = "Long et al. 2015, Learning transferable features with deep adaptation networks"
    limits: ClassVar[str] = "where classes have other shares in the target it aligns what should stay apart"

    weight: float = knob(5.0, choices=(1.0, 5.0, 20.0))

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        return {"discrepancy": self.weight * discrepancy(kernels(torch.cat([seen.fs, seen.ft])), n=len(seen.fs))}


@dataclass(frozen=True)
class JAN(Deep):
    """Bring the joint distributions of features and predictions near: the same discrepancy under the product of their kernels (Long et al. 2017, sec. 4).

    Repairs what DAN repairs, and as predictions enter, a case of one class is not brought near those of another.

    Parameters
    ----------
    depth, width, rate, steps : as in :class:`Deep`
    weight : as in :class:`DAN`
    """

    name: ClassVar[str] = "jan"
    paper: ClassVar[str] = "Long et al. 2017, Deep transfer learning with joint adaptation networks"
    limits: ClassVar[str] = "trusts predictions on the target: where they are wrong, so is what is brought near"
    needs: ClassVar[frozenset[str]] = frozenset({UNLABELLED, "classes"})

    weight: float = knob(5.0, choices=(1.0, 5.0, 20.0))

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        said = torch.cat([seen.zs, seen.zt]).softmax(dim=1)
        joint = kernels(torch.cat([seen.fs, seen.ft])) * gaussian_kernel(squared_distances(said, said), bandwidth=OF_PREDICTIONS)
        return {"joint discrepancy": self.weight * discrepancy(joint, n=len(seen.fs))}


def kernels(x: Tensor, *, octaves: tuple[int, ...] = OCTAVES) -> Tensor:
    """Return (n, n): the mean of Gaussian kernels exp(-|a - b|^2 / (2 s^2)) among rows of x (n, d), s^2 being 2^k times the mean |a - b|^2 over all pairs.

    The bandwidths have no gradient.

    >>> round(kernels(torch.tensor([[0.0], [2.0]]), octaves=(0,))[0, 1].item(), 4)  # 4 / (2 * 2), as half of the pairs are of a case and itself
    0.3679
    """
    squared = squared_distances(x, x)
    mean = squared.detach().mean().clamp_min(torch.finfo(x.dtype).tiny)
    return gaussian_kernel(squared, bandwidth=torch.stack([(2.0**k * mean).sqrt() for k in octaves]))


def discrepancy(kernel: Tensor, *, n: int) -> Tensor:
    """Return the unbiased squared discrepancy of the first n rows and the others, of their joint kernel (n + m, n + m) (Gretton et al. 2012, eq. 3).

    >>> discrepancy(torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.5, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.25], [0.0, 0.0, 0.25, 1.0]]), n=2)
    tensor(0.7500)
    """
    ours, theirs, across = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
    return _off_diagonal_mean(ours) + _off_diagonal_mean(theirs) - 2.0 * across.mean()


def _off_diagonal_mean(kernel: Tensor) -> Tensor:
    n = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / max(1, n * (n - 1))

"""How the states of a text's tokens become one feature. The mask is the last channel: 1 where a token is, 0 on padding at the right."""

from __future__ import annotations

import torch
from torch import Tensor, nn

POOLINGS = ("mean", "cls", "last")


class Pooling(nn.Module):
    """Return (n, d) of states with their mask (n, t, d + 1); features (n, d) pass through.

    "mean" is over the tokens that the mask holds, "cls" is the first token, "last" the last that the mask holds.

    >>> x = torch.tensor([[[1.0, 1.0], [3.0, 1.0], [9.0, 0.0]]])  # two tokens and padding
    >>> [Pooling(how)(x).item() for how in POOLINGS]
    [2.0, 1.0, 3.0]
    """

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return x
        hidden, mask = x[..., :-1], x[..., -1:].to(x.dtype)
        if self.how == "cls":
            return hidden[:, 0]
        if self.how == "last":
            last = (mask[..., 0].sum(dim=1).long() - 1).clamp(min=0)
            return hidden[torch.arange(len(hidden)), last]
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)

"""Edits of texts that mostly leave their meaning: words deleted or swapped, tokens masked. No word is put in that was not there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from headstart.core import Backbone

WORDS = ("delete", "swap")
RATE = 0.1  # of the words; Wei & Zou 2019 find .05 to .1 best and .3 harmful
MASKED = 0.15  # of the tokens, as BERT was trained with


def reworded(text: str, steps: Sequence[str], dice: np.random.Generator) -> str:
    """Return the text with a tenth of its words deleted, or swapped in pairs; at least one pair is swapped, and never is every word deleted.

    >>> reworded("one two three", ["swap"], np.random.default_rng(0))
    'one three two'
    """
    words = text.split()
    if "delete" in steps and len(words) > 1:
        keep = dice.random(len(words)) >= RATE
        keep[dice.integers(len(words))] = True
        words = [word for word, kept in zip(words, keep, strict=True) if kept]
    if "swap" in steps and len(words) > 1:
        for _ in range(max(1, round(RATE * len(words)))):
            a, b = dice.choice(len(words), 2, replace=False)
            words[a], words[b] = words[b], words[a]
    return " ".join(words)


def masked(encoded: Tensor, backbone: Backbone, dice: np.random.Generator) -> Tensor:
    """Return int64 (t, 2) with about 15 % of the tokens between the first and the last, which frame the text, behind the mask token.

    A tokenizer without one (GPT's) has its unknown token there, or what pads.
    """
    tokenizer = backbone.tokenizer
    names = ("mask_token_id", "unk_token_id", "pad_token_id")
    filler = next((int(found) for name in names if (found := getattr(tokenizer, name, None)) is not None), 0)
    hidden = dice.random(len(encoded)) < MASKED
    hidden[[0, -1]] = False
    out = encoded.clone()
    out[torch.from_numpy(hidden), 0] = filler
    return out

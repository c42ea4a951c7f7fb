"""What a fitted candidate depends on: its inputs and the seed, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from headstart import sources
from headstart.activations.store import Store
from headstart.learner import Candidate, learn
from headstart.methods import Scratch
from headstart.views import Views


def test_a_net_from_random_weights_is_the_same_whatever_drew_random_numbers_before(tmp_path: Path) -> None:
    items = [np.full((32, 32, 3), 20 * i, np.uint8) for i in range(8)]
    views = Views(items, [str(i) for i in range(8)], {}, Store(tmp_path))
    method = Scratch(lambda seed: sources.twin(sources.entry("squeezenet").recipe, seed=seed), steps=2)
    heads = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        fitted = learn(Candidate(method), views, np.arange(8), np.arange(8) % 2, classes=2, seed=0)
        heads.append(fitted.model.head.weight.detach().clone())
    assert torch.equal(*heads)
    torch.manual_seed(7)
    first = torch.rand(1)
    torch.manual_seed(7)
    learn(Candidate(method), views, np.arange(8), np.arange(8) % 2, classes=2, seed=0)
    assert torch.equal(torch.rand(1), first)

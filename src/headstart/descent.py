"""How a step is taken: AdamW, its tensors in one group for each rate, along gradients that are clipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import nn

from headstart.core import Net
from headstart.freezing import Learner
from headstart.keeping import Progress
from headstart.methods.method import Method

CLIP = 1.0


class Descent:
    """AdamW over what learns of a net, each group one call: of small nets, a group for every tensor was an eighth of a step.

    Parameters
    ----------
    who : the tensors, by stage
    method : whose rates, schedule and constants of AdamW they are
    multiples : further multiples of the rate for tensors by name, as a training that is gone on with had them last
    """

    def __init__(self, who: Sequence[Learner], method: Method, multiples: Mapping[str, float]) -> None:
        self.who, self.method = who, method
        self.multiples = dict(multiples)
        # why fused: of small nets, going over the numbers ten times was a fifth of a step
        self.optimiser = torch.optim.AdamW(self._groups(), lr=0.0, weight_decay=0.0, eps=method.epsilon, fused=True)

    def step(self, net: Net, rates: Sequence[float], state: Progress) -> None:
        """Take one step along the gradients that the net holds, at a rate (stages,) for each stage."""
        if state.multiples != self.multiples:
            self.multiples = dict(state.multiples)
            self.optimiser.param_groups[:] = [{**self.optimiser.param_groups[0], **group} for group in self._groups()]
        scale, momentum = self.method.schedule(state.step, self.method.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rates[group["stage"]] * group["multiple"] * scale
            group["betas"] = (momentum, self.method.second_moment)
        moved = [p for p in net.parameters() if p.grad is not None]
        nn.utils.clip_grad_norm_(moved, CLIP)
        self.optimiser.step()
        torch.autograd.graph.increment_version(moved)  # why: the optimiser's one pass does not, and a crew sends what has another version than before

    def _groups(self) -> list[dict[str, Any]]:
        """Return the tensors in groups of one stage, one decay and one multiple, in an order that those alone settle."""
        keys = [(one.stage, one.decay, self.multiples.get(one.name, 1.0)) for one in self.who]
        order = sorted(range(len(keys)), key=lambda i: (keys[i], i))
        names = ("stage", "weight_decay", "multiple")
        return [{**dict(zip(names, key, strict=True)), "params": [self.who[i].tensor for i in same]} for key, same in groupby(order, key=lambda i: keys[i])]

"""fastai's schedule, by its published formulas written out here, as the optimiser receives it; and the rate finder on losses that are known."""

from __future__ import annotations

import copy
from collections import OrderedDict
from math import cos, pi

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from headstart.contract_method import tiny_source
from headstart.core import InputError, Net
from headstart.keeping import Settings
from headstart.methods import L2SP, Gradual, OneCycle
from headstart.rate_finder import RateFound, find_rate, rate_at, valley
from headstart.train import fit


def published(step: int, frozen: int, steps: int, *, base: float) -> tuple[list[float], float]:
    """fit_one_cycle(1, slice(base), pct_start=.99), then fit_one_cycle(n, slice(base/200, base/2), pct_start=.3, div=5): rates of 3 groups, momentum."""
    start, length, rise, div = (0, frozen, 0.99, 25.0) if step < frozen else (frozen, steps - frozen, 0.3, 5.0)
    peaks = [0.0, 0.0, base] if step < frozen else [base / 200, base / 20, base / 2]
    p = (step - start) / length
    if p < rise:  # SchedCos(a, b)(q) = a + (1 + cos(pi (1 - q))) (b - a) / 2
        q = (1 + cos(pi * (1 - p / rise))) / 2
        return [m / div + q * (m - m / div) for m in peaks], 0.95 + q * (0.85 - 0.95)
    q = (1 + cos(pi * (1 - (p - rise) / (1 - rise)))) / 2
    return [m + q * (m / 1e5 - m) for m in peaks], 0.85 + q * (0.95 - 0.85)


def test_rate_and_momentum_of_every_step_and_group_are_fastais() -> None:
    source = tiny_source()
    stages = len(source.stages)
    method = OneCycle(rate=2e-3, steps=25, epochs=4, groups=3)
    net = method.build(source, features=None, y=np.arange(8) % 2, classes=2, seed=0)
    received: list[list[tuple[float, tuple[float, float], float, float]]] = []

    def note(optimiser: Optimizer, args: object, kwargs: object) -> None:
        of = {id(p): (g["lr"], g["betas"], g["eps"], g["weight_decay"]) for g in optimiser.param_groups for p in g["params"]}
        received.append([of[id(p)] for p in net.parameters()])

    names = [name for name, _ in net.named_parameters()]
    hook = register_optimizer_step_pre_hook(note)
    x = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
    fit(method, net, x, np.arange(8) % 2, seed=0)
    hook.remove()
    children = [name for name, _ in net.body.named_children()]
    place = [2 if n.startswith("head") else int(children.index(n.split(".")[1]) >= -(-stages // 2)) for n in names]
    assert set(place) == {0, 1, 2}
    assert len(received) == 25
    for step, tensors in enumerate(received):
        rates, momentum = published(step, 5, 25, base=2e-3)
        for group, (lr, betas, epsilon, decay) in zip(place, tensors, strict=True):
            assert lr == pytest.approx(rates[group], abs=1e-12)
            assert betas == pytest.approx((momentum, 0.99), abs=1e-12)
            assert epsilon == 1e-5
            assert decay in {0.0, 0.01}


def test_two_groups_are_body_and_head() -> None:
    assert OneCycle(groups=2, steps=10).rates(5, 0.9) == pytest.approx([0.005] * 5 + [0.5])
    assert OneCycle(groups=2, steps=10, lr_mult=10).rates(3, 0.9) == pytest.approx([0.05] * 3 + [0.5])


def test_the_share_of_frozen_steps_is_that_of_one_frozen_epoch() -> None:
    assert [OneCycle(steps=100, epochs=e).alone for e in (1, 4, 9)] == [50, 20, 10]


def line(weight: float = 0.0) -> Net:
    head = nn.Sequential(OrderedDict(linear=nn.Linear(1, 1)))
    with torch.no_grad():
        head.linear.weight.fill_(weight)
        head.linear.bias.fill_(0.0)
    return Net(nn.Sequential(OrderedDict(stage=nn.Identity())), head)


def planted() -> tuple[RateFound, Net, Net]:
    """A line of slope 1 through numbers: AdamW moves the slope by the rate, so it arrives when rates up to there add up to 1."""
    x = np.linspace(-2, 2, 32, dtype=np.float32)[:, None]
    net = line()
    before = copy.deepcopy(net)
    return find_rate(Gradual(until=0.01), net, x, x[:, 0].astype(np.float64), seed=0), net, before


def test_micro_batches_do_not_count_as_steps_of_a_sweep() -> None:
    x = np.linspace(-2, 2, 32, dtype=np.float32)[:, None]
    parts = find_rate(Gradual(until=0.01), line(), x, x[:, 0].astype(np.float64), seed=0, settings=Settings(micro=8))
    assert parts == planted()[0]


def test_the_suggestion_lies_where_the_planted_loss_falls() -> None:
    found, _, _ = planted()
    factor = rate_at(1) / rate_at(0)
    arrives = next(r for r in found.rates if 10 * r / (1 - 1 / factor) > 1)  # a geometric sum; the head's rate is ten times the method's
    assert 1e-2 * arrives < found.suggestion < 3 * arrives
    assert found.losses[0] == pytest.approx(np.mean(np.linspace(-2, 2, 32) ** 2), rel=1e-5)
    assert min(found.losses) < 0.8 * found.losses[0]


def test_the_search_ends_where_the_loss_is_four_times_its_least_or_rates_end() -> None:
    found, _, _ = planted()
    assert len(found.rates) == len(found.losses) == 100 or found.losses[-1] > 4 * min(found.losses)
    assert all(one <= 4 * min(found.losses[: i + 1]) for i, one in enumerate(found.losses[:-1]))
    assert found.rates == pytest.approx([1e-7 * 10 ** (8 * k / 100) for k in range(len(found.rates))])


def test_the_net_is_left_as_it_was_scaffold_included() -> None:
    _, net, before = planted()
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), before.state_dict().values(), strict=True))
    source = tiny_source()
    method = L2SP()
    y = np.arange(12) % 2
    features = np.random.default_rng(0).normal(size=(12, source.dim))
    net = method.build(source, features=features, y=y, classes=2, seed=0)
    with torch.no_grad():
        x = source.backbone.below(method.view(source).cuts[0])(torch.randn(12, 3, 8, 8)).numpy()
    find_rate(method, net, x, y, seed=0)
    assert net.scaffold is not None


def test_the_valley_is_a_sixth_behind_a_third_of_the_longest_fall() -> None:
    # losses fall to place 16 and rise behind: the chain has 14 members, of the 9s one; 16 - 14 = 2, a third is 4.67, and 2 + 4 + 2 = 8
    losses = [9.0, 9.0, 9.0, 9.0, *np.linspace(8, 2, 13), 3.0, 4.0]
    assert valley([float(k) for k in range(len(losses))], losses) == 8.0


def test_a_loss_that_grows_at_once_is_refused() -> None:
    x = np.full((32, 1), 1e18, dtype=np.float32)
    with pytest.raises(InputError, match="Look at the data"):
        find_rate(Gradual(until=0.01, rate=1.0), line(), x, np.linspace(1, 2, 32), seed=0)

"""The one loop: frozen is frozen bit for bit, the same seed gives the same bits, and what it minimises is what was asked."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import Batch, InputError, Net, Source
from headstart.methods.method import Method, View
from headstart.train import OutOfTime, fit, gains_from_bfloat16, predict_logits


@dataclass(frozen=True)
class Plain(Method):
    """A small net whose first ``frozen`` stages do not learn."""

    name = "plain"
    arm = "baseline"
    level = "none"
    steps: int = 40
    rate: float = 1e-2
    frozen: int = 0

    def view(self, source: Source | None) -> View:
        return View("image")

    def build(self, source: Source, *, features: np.ndarray | None, y: np.ndarray, classes: int, seed: int) -> Net:
        torch.manual_seed(seed)
        stage = lambda i, o: nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())  # noqa: E731
        body = nn.Sequential(OrderedDict(a=stage(3, 4), b=stage(4, 6), c=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())))
        return Net(body, nn.Sequential(nn.Dropout(0.2), nn.Linear(6, classes)))

    def rates(self, stages: int, progress: float) -> list[float]:
        return [float(i >= self.frozen) for i in range(stages + 1)]

    def loss(self, net: Net, batch: Batch, weights: Tensor) -> dict[str, Tensor]:
        return {"cross entropy": functional.cross_entropy(net(batch.x), batch.y, weight=weights)}


@dataclass(frozen=True)
class PlainLearningStatistics(Plain):
    freezes_statistics = False


def data(n: int = 64) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    y = np.arange(n) % 2
    x = generator.normal(size=(n, 3, 8, 8)) + 1.5 * y[:, None, None, None]
    return x.astype(np.float16), y


def trained(method: Plain, seed: int = 0) -> tuple[Net, Net]:
    x, y = data()
    before = method.build(Source("s"), features=None, y=y, classes=2, seed=0)
    after, _ = fit(method, method.build(Source("s"), features=None, y=y, classes=2, seed=0), x, y, seed=seed)
    return before, after


@pytest.mark.parametrize("kind", [Plain, PlainLearningStatistics])
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_is_frozen_bit_for_bit_with_its_statistics_and_the_rest_learns(kind: type[Plain], frozen: int) -> None:
    before, after = trained(kind(frozen=frozen))
    for i, name in enumerate("ab"):
        old, new = before.body.get_submodule(name).state_dict(), after.body.get_submodule(name).state_dict()
        weights_moved = not torch.equal(old["0.weight"], new["0.weight"])
        statistics_moved = not torch.equal(old["1.running_mean"], new["1.running_mean"])
        assert weights_moved == (i >= frozen)
        assert statistics_moved == (i >= frozen and not kind.freezes_statistics)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    _, one = trained(Plain(), seed=3)
    torch.manual_seed(99)
    _, two = trained(Plain(), seed=3)
    _, three = trained(Plain(), seed=4)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not torch.equal(one.head[1].weight, three.head[1].weight)


def test_training_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    x, y = data()
    net = Plain().build(Source("s"), features=None, y=y, classes=2, seed=0)
    torch.manual_seed(5)
    fit(Plain(steps=3), net, x, y, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_it_learns_a_planted_difference() -> None:
    x, y = data(128)
    net = Plain().build(Source("s"), features=None, y=y, classes=2, seed=0)
    fit(Plain(), net, x[:64], y[:64], seed=0)
    assert (predict_logits(net, x[64:]).argmax(1) == y[64:]).mean() > 0.95


def test_rare_classes_count_as_much_as_frequent_ones() -> None:
    x = np.ones((40, 3, 8, 8), dtype=np.float16)
    y = np.r_[np.zeros(30, int), np.ones(10, int)]
    net = Plain().build(Source("s"), features=None, y=y, classes=2, seed=0)
    fit(Plain(steps=300, rate=3e-2), net, x, y, seed=0)
    logits = predict_logits(net, x[:1])[0]
    assert abs(logits[0] - logits[1]) < 0.3  # inputs tell nothing, so balanced classes give even odds; unweighted would give log 3 = 1.1


def test_a_deadline_in_the_past_stops_before_the_first_step() -> None:
    x, y = data()
    net = Plain().build(Source("s"), features=None, y=y, classes=2, seed=0)
    with pytest.raises(OutOfTime):
        fit(Plain(), net, x, y, seed=0, deadline=0.0)


def test_a_loss_that_is_no_number_is_named_with_the_way_out() -> None:
    x, y = data()
    x[0] = np.nan
    net = Plain().build(Source("s"), features=None, y=y, classes=2, seed=0)
    with pytest.raises(InputError, match=r"The loss of 'plain' became nan at step \d+. Lower its rate \(now 0.01\)"):
        fit(Plain(), net, x, y, seed=0)


def test_bfloat16_is_used_only_where_it_is_asked_for_and_pays() -> None:
    (x, y), plain = data(), Plain(steps=10)

    def losses(groups: int, *, reduced: bool) -> tuple[tuple[float, ...], set[torch.dtype]]:
        net = plain.build(Source("s"), features=None, y=y, classes=2, seed=0)
        net.body.b[0] = nn.Conv2d(4, 4 if groups > 1 else 6, 3, padding=1, groups=groups)
        net.body.b[1] = nn.Identity()
        net.head[1] = nn.Linear(4 if groups > 1 else 6, 2)
        seen: set[torch.dtype] = set()
        net.body.b[0].register_forward_hook(lambda module, given, out: seen.add(out.dtype))
        torch.manual_seed(1)
        for p in net.parameters():
            nn.init.normal_(p, std=0.1)
        after, history = fit(plain, net, x, y, seed=0, reduced=reduced)
        assert {p.dtype for p in after.parameters()} == {torch.float32}
        return history.losses, seen

    (full, kept), (half, narrow), (grouped, wide) = losses(1, reduced=False), losses(1, reduced=True), losses(4, reduced=True)
    native = gains_from_bfloat16(nn.Conv2d(2, 2, 1))
    assert (kept, narrow, wide) == ({torch.float32}, {torch.bfloat16 if native else torch.float32}, {torch.float32})
    assert half == pytest.approx(full, rel=0.02)
    assert (half != full) == native
    assert np.isfinite(grouped).all()

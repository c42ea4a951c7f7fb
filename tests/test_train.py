"""The one loop: frozen is frozen bit for bit, the same seed gives the same bits, and what it minimises is what was asked."""

from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import Batch, InputError, Net, Source
from headstart.descent import CLIP, Descent
from headstart.freezing import learners
from headstart.keeping import Checkpoint, Progress, Settings
from headstart.methods.method import Criterion, Method, View, target_loss
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

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        return {"cross entropy": functional.cross_entropy(net(batch.x), batch.y, weight=criterion.weights)}


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


def moved_on(method: Plain, x: np.ndarray, y: np.ndarray, **how: object) -> tuple[Net, tuple[float, ...]]:
    net = method.build(Source("s"), features=None, y=y, classes=2, seed=0)
    after, history = fit(method, net, x, y, seed=0, **how)  # type: ignore[arg-type]
    return after, history.losses


def equal(one: Net, two: Net) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.mark.parametrize("settings", [Settings(), Settings(average=0.9), Settings(held_in=0.25, checks=10, patience=3)], ids=["plain", "average", "held-in"])
@pytest.mark.parametrize("stop", [1, 7, 24])
def test_a_training_resumed_from_a_checkpoint_ends_with_the_same_bits(settings: Settings, stop: int) -> None:
    (x, y), kept = data(), list[Checkpoint]()
    method = PlainLearningStatistics(steps=24, rate=3e-2)
    whole, losses = moved_on(method, x, y, settings=settings, keep=(stop, kept.append))
    again, later = moved_on(method, x, y, settings=settings, resume=kept[0])
    assert equal(whole, again)
    assert losses == later


@pytest.mark.parametrize("micro", [1, 5, 16])
def test_parts_of_a_batch_give_the_batchs_own_step(micro: int) -> None:
    x, y = data()
    y = (np.arange(64) % 4 == 0).astype(int)  # why unequal: classes then weigh differently in each part
    method = NoDropout(steps=10)
    (whole, losses), (parts, theirs) = (moved_on(method, x, y, settings=Settings(micro=m)) for m in (0, micro))
    assert theirs == pytest.approx(losses, rel=1e-4)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)


@dataclass(frozen=True)
class NoDropout(Plain):
    """Smoothed, and without chance."""

    def build(self, source: Source, *, features: np.ndarray | None, y: np.ndarray, classes: int, seed: int) -> Net:
        net = super().build(source, features=features, y=y, classes=classes, seed=seed)
        net.head[0] = nn.Identity()
        return net

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        return target_loss(net(batch.x), batch.y, criterion, smoothing=0.1)


@dataclass(frozen=True)
class Cramped(NoDropout):
    """Runs out of memory with more than ``room`` cases at once."""

    room: int = 6
    words: str = "DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        if len(batch.y) > self.room:
            raise RuntimeError(self.words)
        SEEN.append(len(batch.y))
        return super().loss(net, batch, criterion)


SEEN: list[int] = []


def test_where_memory_runs_out_parts_are_halved_and_the_step_is_the_same() -> None:
    x, y = data()
    SEEN.clear()
    whole, _ = moved_on(NoDropout(steps=10), x, y)
    cramped, _ = moved_on(Cramped(steps=10), x, y)
    assert set(SEEN) == {4}  # 32, 16, 8, then 4, and never 8 again
    for a, b in zip(whole.parameters(), cramped.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)


@pytest.mark.parametrize("method", [Cramped(room=0), Cramped(words="shapes do not fit")], ids=["one case too many", "another error"])
def test_other_errors_and_too_little_memory_for_one_case_are_not_hidden(method: Cramped) -> None:
    x, y = data()
    with pytest.raises(RuntimeError, match=method.words):
        moved_on(method, x, y)


def test_the_average_of_weights_is_the_one_written_out() -> None:
    (x, y), kept = data(), list[Checkpoint]()
    averaged, _ = moved_on(Plain(steps=12), x, y, settings=Settings(average=0.8), keep=(1, kept.append))
    steps = [c.net["head.1.weight"].double().numpy() for c in kept]
    expected = steps[0]
    for t, weights in enumerate(steps[1:], 2):
        decay = min(0.8, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * weights
    np.testing.assert_allclose(averaged.head[1].weight.detach().numpy(), expected, atol=1e-6)


def test_early_stopping_serves_the_weights_that_were_best_on_cases_held_in() -> None:
    x = np.random.default_rng(0).normal(size=(64, 3, 8, 8)).astype(np.float32)
    y = np.random.default_rng(1).integers(0, 2, size=64)  # why noise: what is learnt of it makes the held-in loss rise
    method, kept = NoDropout(steps=60, rate=3e-2), list[Checkpoint]()
    settings = Settings(held_in=0.25, checks=60, patience=4)
    served, losses = moved_on(method, x, y, settings=settings, keep=(1, kept.append))
    _, held = settings.split(y, torch.Generator().manual_seed(0))
    counts = np.bincount(y)
    weights = torch.from_numpy(len(y) / (2 * counts)).float()

    def loss(state: dict[str, Tensor]) -> float:
        net = method.build(Source("s"), features=None, y=y, classes=2, seed=0)
        net.load_state_dict(state)
        logits = torch.from_numpy(predict_logits(net, x[held])).float()
        return float(functional.cross_entropy(logits, torch.from_numpy(y[held]), weight=weights))

    path = [loss(c.net) for c in kept]
    assert len(losses) == len(path) == int(np.argmin(path)) + 1 + 4 < 60
    assert loss(served.state_dict()) == pytest.approx(min(path), rel=1e-5)


def test_held_in_cases_are_a_share_of_each_class_and_never_its_last() -> None:
    y = np.array([0] * 20 + [1] * 8 + [2])
    taught, held = Settings(held_in=0.25).split(y, torch.Generator().manual_seed(0))
    assert np.bincount(y[held], minlength=3).tolist() == [5, 2, 0]
    assert sorted([*taught, *held]) == list(range(29))


def test_a_tensor_that_two_stages_share_learns_only_if_its_first_stage_does() -> None:
    shared = nn.Linear(4, 4)
    net = Net(nn.Sequential(OrderedDict(a=nn.Sequential(shared), b=nn.Sequential(nn.Linear(4, 4), shared))), nn.Linear(4, 2))
    before = shared.weight.detach().clone()
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    fit(Plain(frozen=1, steps=3), net, x, np.arange(20) % 2, seed=0)
    assert torch.equal(shared.weight, before)


def test_what_only_training_needs_is_gone_afterwards() -> None:
    x, y = data()
    net = Plain().build(Source("s"), features=None, y=y, classes=2, seed=0)
    net.scaffold = nn.ModuleDict({"teacher": nn.Linear(2, 2).requires_grad_(False), "critic": nn.Linear(2, 2)})
    teacher = net.scaffold["teacher"]
    weight = teacher.weight.detach().clone()
    served, _ = fit(Plain(steps=3), net, x, y, seed=0)
    assert not [name for name in served.state_dict() if "scaffold" in name]
    assert torch.equal(teacher.weight, weight)
    assert not teacher.training


@dataclass(frozen=True)
class Seeing(Plain):
    """Writes down what batches it gets."""

    seen: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list, compare=False)

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        assert batch.unlabelled is not None
        assert batch.unlabelled_rows is not None
        assert batch.rows is not None
        self.seen.append((batch.rows, batch.unlabelled_rows, batch.unlabelled))
        return super().loss(net, batch, criterion)


def test_every_batch_brings_as_many_cases_of_the_second_domain_and_each_of_them_comes_once_a_pass() -> None:
    x, y = data()
    other = (x[:40] + 1).astype(np.float32)
    method = Seeing(steps=6)
    net = method.build(Source("s"), features=None, y=y, classes=2, seed=0)
    fit(method, net, x, y, seed=0, unlabelled=other, settings=Settings(batch=16, micro=5))
    rows = torch.cat([r for _, r, _ in method.seen])
    assert [len(r) for _, r, _ in method.seen][:4] == [5, 5, 5, 1]
    assert rows[:40].sort().values.tolist() == list(range(40))
    assert all(torch.equal(given, torch.from_numpy(other)[r]) for _, r, given in method.seen)
    plain = Seeing(steps=6)
    fit(plain, plain.build(Source("s"), features=None, y=y, classes=2, seed=0), x, y, seed=0, unlabelled=other[:8], settings=Settings(batch=16, micro=5))
    assert all(torch.equal(a, b) for (a, _, _), (b, _, _) in zip(method.seen, plain.seen, strict=True))


def test_tensors_that_change_their_multiples_step_as_if_each_were_a_group() -> None:
    """Of four tensors two share a rate, then other two; AdamW of PyTorch, a group for each, is the reference."""
    method = Plain(steps=6)
    x, y = data(16)
    nets = [method.build(Source("s"), features=None, y=y, classes=2, seed=0) for _ in range(2)]
    who, names = learners(nets[0], method), [name for name, _ in nets[1].named_parameters()]
    descent, state = Descent(who, method, {}), Progress()
    plain = torch.optim.AdamW([{"params": [p], "weight_decay": method.weight_decay * (p.ndim > 1)} for p in nets[1].parameters()], lr=0.0, fused=True)
    for step in range(method.steps):
        state.step = step
        state.multiples = {} if step < 2 else {names[0]: 0.5, names[4]: 0.5} if step < 4 else {names[0]: 0.5, names[1]: 2.0}
        for net in nets:
            net.zero_grad()
            functional.cross_entropy(net.eval()(torch.from_numpy(x).float()), torch.from_numpy(y)).backward()
        for name, group in zip(names, plain.param_groups, strict=True):
            group["lr"] = 1e-2 * state.multiples.get(name, 1.0) * method.schedule(step, method.steps)[0]
        nn.utils.clip_grad_norm_(nets[1].parameters(), CLIP)
        plain.step()
        descent.step(nets[0], [1e-2] * 4, state)
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    assert len(descent.optimiser.param_groups) < len(names)

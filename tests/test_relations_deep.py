"""Losses of deep adaptation against closed forms and plain loops, and what the loop gives methods of two domains."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import softmax
from torch import Tensor, nn

from deep_worlds import adapted, columns, spurious
from headstart.activations.store import Store
from headstart.core import Batch, InputError, Net, Source
from headstart.distance import coral
from headstart.keeping import Checkpoint
from headstart.learner import Candidate, Target, learn
from headstart.methods.method import View
from headstart.methods.relations.deep import DANN, DEEP, SourceOnly
from headstart.methods.relations.deep.afn import growth
from headstart.methods.relations.deep.bottleneck import Bottleneck
from headstart.methods.relations.deep.dan import OCTAVES, discrepancy, kernels
from headstart.methods.relations.deep.deep import cuts
from headstart.methods.relations.deep.mcc import confusion, entropy
from headstart.methods.relations.deep.reversal import critic, ramp, reversed_gradient, told_apart
from headstart.train import fit
from headstart.views import Views


def test_the_kernel_is_of_squared_distances() -> None:
    """At distance 3 with deviation 1 a Gaussian is exp(-9/2); one of plain distances, as in a published library, would say exp(-3/2)."""
    x = torch.tensor([[0.0], [3.0]], dtype=torch.float64)
    mean = 9.0 * 2 / 4
    for k in OCTAVES:
        assert kernels(x, octaves=(k,))[0, 1].item() == pytest.approx(math.exp(-9.0 / (2.0 * 2.0**k * mean)))
    by_hand = np.mean([math.exp(-1.0 / 2.0**k) for k in OCTAVES])
    assert kernels(x)[0, 1].item() == pytest.approx(by_hand)


def test_the_discrepancy_is_the_unbiased_one_of_all_pairs() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 3, dtype=torch.float64)
    kernel, n, m = kernels(x), 4, 3
    within = sum(kernel[i, j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    beyond = sum(kernel[i, j] for i in range(n, 7) for j in range(n, 7) if i != j) / (m * (m - 1))
    across = sum(kernel[i, j] for i in range(n) for j in range(n, 7)) / (n * m)
    assert discrepancy(kernel, n=n).item() == pytest.approx(float(within + beyond - 2 * across))


def test_the_coral_loss_is_its_closed_form() -> None:
    torch.manual_seed(0)
    xs, xt = torch.randn(9, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    by_hand = np.square(np.cov(xs.numpy().T) - np.cov(xt.numpy().T)).sum() / (4 * 4**2)
    assert coral(xs, xt).item() == pytest.approx(by_hand)


def test_reversal_is_the_identity_forward_and_minus_its_strength_backward() -> None:
    x = torch.tensor([1e-8, 3.3, -1e8], requires_grad=True)
    out = reversed_gradient(x, 0.3)
    assert torch.equal(out, x)
    (out * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([-0.3, -0.6, -0.9])


def test_the_ramp_is_the_papers() -> None:
    assert [ramp(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.0, 2 / (1 + math.exp(-5)) - 1, 2 / (1 + math.exp(-10)) - 1])


def test_the_critic_learns_with_the_gradient_that_the_features_hear_reversed() -> None:
    torch.manual_seed(0)
    judge = critic(3).eval()
    fs, ft = torch.randn(5, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    told_apart(judge, fs, ft).backward()
    straight = [fs.grad.clone(), *(p.grad.clone() for p in judge.parameters())]  # type: ignore[union-attr]
    fs.grad = None
    judge.zero_grad()
    told_apart(judge, reversed_gradient(fs, 0.5), reversed_gradient(ft, 0.5)).backward()
    assert torch.allclose(fs.grad, -0.5 * straight[0])  # type: ignore[arg-type]
    assert all(torch.allclose(p.grad, g) for p, g in zip(judge.parameters(), straight[1:], strict=True))  # type: ignore[arg-type]


def test_a_critics_loss_is_the_mean_of_both_domains_cross_entropies() -> None:
    given = nn.Linear(1, 1)
    with torch.no_grad():
        given.weight.fill_(1.0)
        given.bias.zero_()
    odds = lambda z: 1 / (1 + math.exp(-z))  # noqa: E731
    by_hand = -0.5 * math.log(odds(2.0)) - 0.5 * (math.log(1 - odds(0.5)) + math.log(1 - odds(-1.0))) / 2
    assert told_apart(given, torch.tensor([[2.0]]), torch.tensor([[0.5], [-1.0]])).item() == pytest.approx(by_hand)


def test_confusion_is_what_a_plain_loop_over_cases_and_classes_finds() -> None:
    torch.manual_seed(0)
    z = torch.randn(6, 3, dtype=torch.float64)
    p = [[math.exp(v / 2.5) / sum(math.exp(w / 2.5) for w in row) for v in row] for row in z.tolist()]
    sure = [1 + math.exp(sum(v * math.log(v) for v in row)) for row in p]
    weights = [w * len(p) / sum(sure) for w in sure]
    table = [[sum(w * row[i] * row[j] for w, row in zip(weights, p, strict=True)) for j in range(3)] for i in range(3)]
    by_hand = sum(table[i][j] / sum(table[i]) for i in range(3) for j in range(3) if i != j) / 3
    assert confusion(z, temperature=2.5).item() == pytest.approx(by_hand)


def test_cases_as_far_out_as_raw_pixels_of_another_camera_leave_losses_and_slopes_numbers() -> None:
    z = torch.tensor([[3000.0, -3000.0, 0.0], [2000.0, 0.0, -500.0], [1000.0, 900.0, -900.0]], requires_grad=True)
    for loss in (confusion(z, temperature=2.5), entropy(z.softmax(dim=1)).mean(), -entropy(z.softmax(dim=1).mean(dim=0, keepdim=True)).sum()):
        (slope,) = torch.autograd.grad(loss, z)
        assert torch.isfinite(loss)
        assert torch.isfinite(slope).all()
    p = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64)
    assert entropy(p).tolist() == pytest.approx(scipy.stats.entropy(p.numpy(), axis=1).tolist())


def test_norms_grow_by_the_closed_form() -> None:
    f = torch.tensor([[3.0, 4.0], [0.0, 2.0]], requires_grad=True)
    loss = growth(f, step=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(0.25)
    assert torch.allclose(f.grad, -2 * 0.5 / 2 * f.detach() / f.detach().norm(dim=1, keepdim=True))  # type: ignore[arg-type]


def test_a_bottleneck_standardises_by_the_labelled_cases_and_mutes_dead_features() -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(5.0, 100.0, 50), rng.normal(0.0, 1e-3, 50), np.full(50, 7.0)])
    narrow = Bottleneck.over(x, width=4)
    z = (torch.from_numpy(x).float() - narrow.centre) * narrow.scale
    assert torch.allclose(z[:, :2].std(dim=0, correction=0), torch.ones(2), atol=1e-4)
    assert not z[:, 2].any()


def test_cuts_start_behind_the_last_stage() -> None:
    assert cuts(columns(3)) == [1]


@dataclass(frozen=True)
class Surveyor(SourceOnly):
    """Writes down what it is shown, and when."""

    needs = frozenset({"unlabelled target"})
    seen: list[tuple[float, Tensor, bool]] = field(default_factory=list, compare=False)

    def surveys(self, step: int, steps: int) -> bool:
        return step % 3 == 0 or step == steps

    def survey(self, net: Net, parts: Iterable[Tensor], progress: float) -> None:
        self.seen.append((progress, torch.cat(list(parts)), net.training or torch.is_grad_enabled()))


def test_a_survey_goes_over_the_whole_second_domain_at_its_steps_and_at_the_end() -> None:
    xs, ys, xt, _ = spurious(seed=0, n=65)
    method = Surveyor(steps=8)
    adapted(method, xs, ys, xt)
    assert [p for p, _, _ in method.seen] == [0.0, 3 / 8, 6 / 8, 1.0]
    assert all(torch.equal(x, torch.from_numpy(xt).float()) for _, x, _ in method.seen)
    assert not any(learning for _, _, learning in method.seen)


def test_a_resumed_training_is_surveyed_once_before_it_goes_on_and_where_it_would_have_been() -> None:
    xs, ys, xt, _ = spurious(seed=0, n=64)
    first, again, kept = Surveyor(steps=8), Surveyor(steps=8), list[Checkpoint]()
    given = {"features": xs, "y": ys, "classes": 3, "seed": 0}
    fit(first, first.build(columns(20), **given), xs, ys, seed=0, unlabelled=xt, keep=(1, kept.append))  # type: ignore[arg-type]
    fit(again, again.build(columns(20), **given), xs, ys, seed=0, unlabelled=xt, resume=kept[4])  # type: ignore[arg-type]
    assert [p for p, _, _ in again.seen] == [0.0, 6 / 8, 1.0]


@dataclass(frozen=True)
class Timed(DANN):
    """Writes down how far it is told to be."""

    times: list[float] = field(default_factory=list, compare=False)

    def nearing(self, net: Net, batch: Batch, seen: object) -> dict[str, Tensor]:
        self.times.append(batch.progress)
        return {}


def test_every_part_of_a_batch_knows_how_far_training_is() -> None:
    xs, ys, xt, _ = spurious(seed=0, n=60)
    method = Timed(steps=4)
    adapted(method, xs, ys, xt, micro=20)
    assert method.times == [0.0, 0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]


@pytest.mark.parametrize("name", DEEP)
def test_without_a_second_domain_a_method_refuses_in_one_line(name: str, tmp_path: Path) -> None:
    views = Views([], [], {"s": columns(2)}, Store(tmp_path), "tabular")
    with pytest.raises(InputError) as told:
        learn(Candidate(DEEP[name](), columns(2)), views, np.arange(4), np.arange(4) % 2, classes=2, seed=0)
    need = "cases of the target beside the labelled ones; there are none. Move from one domain to another: headstart adapt."
    assert str(told.value) == f"Method {name!r} needs {need}"


class Given(Views):
    """Views of a source whose final features are the items."""

    def array(self, view: View) -> np.ndarray:
        assert view == View("pooled", "s", (1,))
        return np.stack(self.items)


def test_the_learner_hands_over_the_rows_of_the_second_domain(tmp_path: Path) -> None:
    xs, ys, xt, _ = spurious(seed=0, n=60)
    source = columns(20)
    views = Given(np.vstack([xs, xt]).astype(np.float32), [], {"s": source}, Store(tmp_path), "tabular")
    y, theirs = np.concatenate([ys, np.zeros(60, dtype=int)]), np.arange(60, 120)
    fitted = learn(Candidate(DEEP["dan"](steps=5), source), views, np.arange(60), y, classes=3, seed=0, target=Target(theirs))
    alone = adapted(DEEP["dan"](steps=5), xs.astype(np.float32), ys, xt.astype(np.float32))
    assert np.array_equal(fitted.output(views.array(fitted.candidate.view)[theirs]), softmax(alone, axis=1))


def test_a_source_without_tuning_cuts_is_still_adapted_on_its_final_features() -> None:
    assert DANN(depth=1).view(Source("s", stages=("a", "b"))).cuts == (2,)

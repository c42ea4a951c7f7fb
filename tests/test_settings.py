"""Training aids: each against arithmetic written out, or a planted case, and through the one loop."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import Batch, InputError, Net
from headstart.keeping import Checkpoint, Progress, Settings
from headstart.methods import FineTuneAll
from headstart.methods.method import Criterion, target_loss
from headstart.train import fit, predict_logits


def clouds(sizes: list[int], *, d: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.vstack([rng.normal(k, 1.0, (n, d)) for k, n in enumerate(sizes)]).astype(np.float32), np.repeat(np.arange(len(sizes)), sizes)


def net(d: int = 6, classes: int = 2) -> Net:
    torch.manual_seed(0)
    return Net(nn.Sequential(OrderedDict(a=nn.Linear(d, 8), b=nn.ReLU())), nn.Sequential(OrderedDict(dropout=nn.Dropout(0.0), linear=nn.Linear(8, classes))))


def trained(x: np.ndarray, y: np.ndarray, *, classes: int = 2, steps: int = 40, **given: object) -> Net:
    return fit(FineTuneAll(steps=steps, rate=1e-2), net(x.shape[1], classes), x, y, seed=0, settings=Settings(**given))[0]  # type: ignore[arg-type]


def test_the_focal_loss_is_the_one_written_out() -> None:
    output, y = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 1, 0])
    weights = torch.tensor([1.0, 2.0, 0.5])
    p = torch.softmax(output, dim=1)[torch.arange(5), y]
    expected = (weights[y] * (1 - p) ** 2 * -p.log()).sum() / weights[y].sum()
    assert float(target_loss(output, y, Criterion(weights, 2.0))["focal loss"]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_shares_that_are_whole_cost_what_codes_cost(smoothing: float) -> None:
    output, y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 1, 0, 2])
    criterion = Criterion(torch.tensor([1.0, 2.0, 0.5]))
    whole = target_loss(output, functional.one_hot(y, 3).float(), criterion, smoothing=smoothing)["cross entropy"]
    assert float(whole) == pytest.approx(float(target_loss(output, y, criterion, smoothing=smoothing)["cross entropy"]), rel=1e-5)


@pytest.mark.parametrize("focus", [0.0, 1e-9])
def test_smoothing_asks_the_same_of_every_case_whatever_its_class_weighs(focus: float) -> None:
    """A net that says what smoothing asks for has nothing to learn; weighed class by class, cases of a common class of 19 to 1 would be pulled to even odds."""
    y = torch.tensor([0] * 19 + [1])
    wanted = 0.9 * functional.one_hot(y, 2) + 0.05
    output = wanted.log().requires_grad_()
    target_loss(output, y, Criterion(torch.tensor([20 / 38, 10.0]), focus), smoothing=0.1).popitem()[1].backward()
    assert output.grad is not None
    assert output.grad.abs().max() < 1e-6


def test_cases_of_a_unit_are_taught_or_held_in_together_and_no_class_loses_its_last() -> None:
    y = np.array([0, 1] * 20 + [2])
    units = np.append(np.arange(40) // 4, 10)
    taught, held = Settings(held_in=0.3).split(y, torch.Generator().manual_seed(0), units)
    assert not set(units[taught]) & set(units[held])
    assert sorted([*taught, *held]) == list(range(41))
    assert np.bincount(y[held]).tolist() == [6, 6]  # three whole units of two cases of each class
    whole = Settings(held_in=0.3).split(np.linspace(0.0, 1.0, 40), torch.Generator().manual_seed(0), units[:40])
    assert len(whole[1]) == 12


def test_mixed_cases_and_their_targets_are_the_same_mean_of_two() -> None:
    x, y = torch.eye(4), torch.arange(4)
    torch.manual_seed(0)
    mixed = Settings(mixup=1.0).mixed(Batch(x, y, torch.arange(4)), classes=4)
    assert torch.equal(mixed.x, mixed.y)
    assert torch.allclose(mixed.y.sum(dim=1), torch.ones(4))
    assert not torch.equal(mixed.x, x)


def test_numbers_are_mixed_as_numbers() -> None:
    x = torch.arange(6.0)[:, None]
    torch.manual_seed(1)
    mixed = Settings(mixup=1.0).mixed(Batch(x, x[:, 0]), classes=0)
    assert torch.allclose(mixed.x[:, 0], mixed.y)


def test_a_pasted_rectangle_counts_by_its_area() -> None:
    x = torch.arange(4.0)[:, None, None, None].expand(4, 1, 10, 10)
    for seed in range(20):
        torch.manual_seed(seed)
        mixed = Settings(cutmix=1.0).mixed(Batch(x, torch.arange(4)), classes=4)
        for i in range(4):
            own = float((mixed.x[i] == i).float().mean())
            partner = int(mixed.x[i].max() if mixed.x[i].max() != i else mixed.x[i].min())
            if partner != i:
                assert float(mixed.y[i, i]) == pytest.approx(own, abs=1e-6)
                assert float(mixed.y[i, partner]) == pytest.approx(1 - own, abs=1e-6)


def test_what_cannot_be_mixed_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^mixup asks for images, maps or vectors; this method trains on token ids. Leave it out.$"):
        Settings(mixup=0.2).mixed(Batch(torch.ones(2, 5, dtype=torch.long), torch.arange(2)), classes=2)
    with pytest.raises(InputError, match=r"^cutmix asks for images or maps; this method trains on vectors. Leave it out.$"):
        Settings(cutmix=1.0).mixed(Batch(torch.ones(2, 5), torch.arange(2)), classes=2)


def test_balanced_sampling_draws_classes_alike() -> None:
    seen: list[Tensor] = []

    class Watching(FineTuneAll):
        def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
            seen.append(batch.y)
            assert torch.equal(criterion.weights, torch.ones(2))
            return super().loss(net, batch, criterion)

    x, y = clouds([90, 10])
    fit(Watching(steps=60), net(), x, y, seed=0, settings=Settings(balance="sampling"))
    assert float(torch.cat(seen).float().mean()) == pytest.approx(0.5, abs=0.04)


def test_without_balance_the_rare_class_is_predicted_less() -> None:
    x, y = clouds([200, 20], d=2)
    recall = {b: float(np.mean(predict_logits(trained(x, y, balance=b), x).argmax(axis=1)[200:] == 1)) for b in ("weights", "sampling", "none")}
    assert min(recall["weights"], recall["sampling"]) > recall["none"] + 0.1


def test_a_soup_is_the_greedy_average_of_the_best() -> None:
    states = [{"w": torch.tensor([float(v)])} for v in (1.0, 3.0, 9.0)]
    served = nn.Linear(1, 1, bias=False)
    served.weight = nn.Parameter(torch.zeros(1))
    progress = Progress(best=[(1.0, {"weight": states[0]["w"]}), (1.1, {"weight": states[1]["w"]}), (1.2, {"weight": states[2]["w"]})], keeps=3)
    progress.serve(served, lambda: float((served.weight.detach() - 2.2).abs().sum()))  # the mean of 1 and 3 is nearer to 2.2 than 1, that of all is not
    assert float(served.weight.detach()) == pytest.approx(2.0)


def test_a_soup_is_never_worse_than_the_best_on_cases_held_in() -> None:
    x, y = clouds([60, 60], d=4)
    settings = {"held_in": 0.25, "checks": 20, "patience": 20}
    taught, held = Settings(**settings).split(y, torch.Generator().manual_seed(0))  # type: ignore[arg-type]

    def loss(one: Net) -> float:
        return float(functional.cross_entropy(torch.from_numpy(predict_logits(one, x[held])), torch.from_numpy(y[held])))

    best, soup = trained(x, y, **settings), trained(x, y, **settings, soup=5)
    assert loss(soup) <= loss(best) + 1e-6
    assert len(taught) == 90


@pytest.mark.parametrize("given", [{"mixup": 0.4}, {"held_in": 0.2, "soup": 3}, {"balance": "sampling"}, {"focus": 2.0}, {"average": 0.9}])
def test_each_aid_learns_and_resumes_with_the_same_bits(given: dict[str, object]) -> None:
    x, y = clouds([50, 50])
    kept: list[Checkpoint] = []
    method, settings = FineTuneAll(steps=40, rate=1e-2), Settings(**given)  # type: ignore[arg-type]
    whole, _ = fit(method, net(), x, y, seed=0, settings=settings, keep=(17, kept.append))
    again, _ = fit(method, net(), x, y, seed=0, settings=settings, resume=kept[0])
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))
    assert np.mean(predict_logits(whole, x).argmax(axis=1) == y) > 0.9


def test_settings_are_read_from_a_line() -> None:
    assert Settings.parse("held_in=0.1, soup=3") == Settings(held_in=0.1, soup=3)
    assert Settings.parse("") == Settings()
    assert Settings(mixup=0.2).changed() == {"mixup": 0.2}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("mixupp=1", "There is no setting 'mixupp' of training. Did you mean mixup?"),
        ("soup=x", "soup=x cannot be read. Give a whole number, such as soup=1."),
        ("soup=3", "A soup is chosen on cases held in. Set held_in as well, such as held_in=0.1."),
        ("balance=all", "balance='all' is unknown. Choose one of weights, sampling, none."),
        ("average=2", "average=2 is out of range. Give a value from 0 to 0.99999."),
        ("average=0.9,held_in=0.1", "An average of weights (average) and early stopping (held_in) each decide which weights are served. Choose one."),
    ],
)
def test_a_wrong_line_is_answered_with_what_to_do(text: str, answer: str) -> None:
    with pytest.raises(InputError) as error:
        Settings.parse(text)
    assert str(error.value) == answer


def test_a_run_goes_on_only_with_the_settings_it_began_with(tmp_path: Path) -> None:
    from headstart.core import Domain, Inspection, Task
    from headstart.runs import Run

    task = Task("classification", "text", Domain("t", ["a", "b"], ["x", "y"]), ("x", "y"))
    about = {"budget": 60.0, "seed": 0, "margin": 0.0, "engine": "auto"}
    Run(tmp_path / "run").claim(task, Inspection(("1", "2")), [], **about, settings=Settings(mixup=0.2).changed())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"settings: {'mixup': 0.2} there, None here"):
        Run(tmp_path / "run").claim(task, Inspection(("1", "2")), [], **about)  # type: ignore[arg-type]

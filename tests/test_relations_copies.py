"""Copies of the second domain's cases: made of those alone and once, each pass brings the next, and FixMatch trains on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deep_worlds import columns, spurious
from headstart.activations.store import Store
from headstart.adapting.ground import columns_source
from headstart.core import Backbone, Batch, Domain, InputError, Net, Source, Task
from headstart.crew.wire import fields_of
from headstart.gradients import placed
from headstart.keeping import Settings
from headstart.learner import Candidate, Target, learn
from headstart.methods import method as declared
from headstart.methods.method import STRONG, Criterion
from headstart.methods.needs import unmet
from headstart.methods.relations.deep import FixMatch, SelfTraining
from headstart.methods.relations.deep.self_training import consistency
from headstart.modality import tabular
from headstart.modality.augment import STEPS
from headstart.train import fit, predict_logits
from headstart.views import Views
from test_augment import photos, sides, views_of
from test_train import Plain, data


@dataclass(frozen=True)
class Shown(Plain):
    """Writes down which unlabelled cases and copies each batch brings."""

    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list, compare=False)

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        assert batch.unlabelled_rows is not None
        assert batch.copies is not None
        self.seen.append((batch.unlabelled_rows, batch.copies))
        return super().loss(net, batch, criterion)


def test_each_pass_over_the_second_domain_brings_the_next_copy_of_every_case() -> None:
    x, y = data()
    other = (x[:20] + 1).astype(np.float32)
    copies = np.stack([other + 10, other + 20], axis=1)
    method = Shown(steps=6)
    net = method.build(Source("s"), features=None, y=y, classes=2, seed=0)
    fit(method, net, x, y, seed=0, unlabelled=other, copies=copies, settings=Settings(batch=16, micro=5))
    rows, given = (torch.cat(part) for part in zip(*method.seen, strict=True))
    turns = np.arange(6 * 16) // 20 % 2
    assert torch.equal(given, torch.from_numpy(copies[rows.numpy(), turns]))


def test_copies_are_made_of_the_target_alone_and_once(tmp_path: Path) -> None:
    items, y = photos(24)
    source, target = sides(), np.arange(14, 24)
    made: dict[str, int] = {}
    candidate = Candidate(FixMatch(copies=2, steps=3), source)
    for _ in range(2):
        views = views_of(items, source, tmp_path)
        views.progress = lambda label, k: made.update({label: made.get(label, 0) + k})
        learn(candidate, views, np.arange(14), y, classes=2, seed=0, target=Target(target))
    assert made == {"sides": 2 * 24, "crop+rand: sides": 2 * 2 * 10}  # heard of twice, as those from the store are told at once
    whole = views.array(candidate.beside)
    np.testing.assert_array_equal(views.of_rows(candidate.beside, target), whole[target])
    assert whole.shape == (24, 3, 3)
    assert candidate.describe()["beside"] == ["crop+rand"] * 2
    assert "beside" not in Candidate(SelfTraining(), source).describe()


def test_copies_are_trained_on_and_the_cases_as_they_are_give_the_labels() -> None:
    torch.manual_seed(0)
    head = nn.Sequential()
    head.add_module("bottleneck", nn.Linear(3, 4))
    head.add_module("linear", nn.Linear(4, 2))
    net, x, xt, copies = Net(nn.Sequential(), head), torch.randn(6, 3), 4 * torch.randn(6, 3), torch.randn(6, 3)
    batch = Batch(x, torch.arange(6) % 2, torch.arange(6), xt, torch.arange(6), copies=copies)
    found = FixMatch(sure=0.55, weight=0.3, aligned=False).loss(net, batch, Criterion(torch.ones(2)))["own labels"]
    p, labels = head(xt).softmax(dim=1).max(dim=1)
    by_hand = torch.stack([functional.cross_entropy(head(c[None]), k[None]) for c, k, sure in zip(copies, labels, p >= 0.55, strict=True) if sure]).sum()
    assert 0 < int((p >= 0.55).sum()) < 6
    assert found.item() == pytest.approx(0.3 * float(by_hand.detach()) / 6, rel=1e-5)
    assert torch.equal(batch.take(torch.tensor([4])).copies, copies[4:5])  # type: ignore[arg-type]
    assert consistency(head(xt), head(copies), sure=1.1).item() == 0.0
    with pytest.raises(ValueError, match="this batch has none"):
        FixMatch().loss(net, Batch(x, torch.arange(6) % 2, torch.arange(6), xt, torch.arange(6)), Criterion(torch.ones(2)))


def test_whatever_a_batch_holds_goes_along_to_another_device_and_to_another_process() -> None:
    parts = [torch.full((3, 2), float(i)) for i in range(6)]
    batch = Batch(parts[0], parts[1], parts[2], parts[3], parts[4], 0.5, parts[5])
    assert set(map(id, fields_of(batch))) == {id(one) for one in vars(batch).values() if isinstance(one, Tensor)}
    moved = placed(batch, torch.device("meta"))
    assert all(one.is_meta for one in vars(moved).values() if isinstance(one, Tensor))
    assert moved.progress == 0.5


def test_labels_are_aligned_so_that_a_sure_class_does_not_swallow_the_others() -> None:
    """The planted world of two shifted classes: by plain FixMatch one of the three is lost."""
    xs, ys, xt, yt = spurious(seed=0)
    xs, xt = xs.astype(np.float32), xt.astype(np.float32)
    copies = (xt[:, None] + 0.3 * np.random.default_rng(0).normal(size=(len(xt), 2, 20))).astype(np.float32)
    right = {}
    for aligned in (False, True):
        method = FixMatch(aligned=aligned, steps=300)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = method.build(columns(20), features=xs, y=ys, classes=3, seed=0)
        fit(method, net, xs, ys, seed=0, unlabelled=xt, copies=copies)
        right[aligned] = float(np.mean(predict_logits(net, xt).argmax(axis=1) == yt))
    assert right[False] < 0.8
    assert right[True] > 0.9


def test_a_table_s_rows_are_copied_with_noise_and_absent_values(tmp_path: Path) -> None:
    dice, y = np.random.default_rng(0), np.arange(60) % 2
    rows = [{"a": float(2 * k + dice.normal()), "b": float(dice.normal()), "c": "x" if k else "z"} for k in y]
    source = columns_source(Task("classification", "tabular", Domain("d", rows, y.tolist()), ("0", "1")), rows)
    views = Views(rows, [tabular.digest(row) for row in rows], {source.name: source}, Store(tmp_path), "tabular")
    candidate = Candidate(FixMatch(copies=2, steps=20), source)
    seen = views.of_rows(candidate.beside, np.arange(30, 60))
    assert len(np.unique(seen[0], axis=0)) == 3
    assert 0.02 < np.mean(seen[:, 1:, 2:] != seen[:, :1, 2:]) < 0.2  # categories: a tenth does not hold
    fitted = learn(candidate, views, np.arange(30), y, classes=2, seed=0, target=Target(np.arange(30, 60)))
    assert np.mean(fitted.output(views.array(candidate.view)).argmax(axis=1) == y) > 0.8


def test_every_modality_has_steps_for_its_strong_policy_and_what_has_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(set(policy.split("+")) <= set(STEPS[kind]) for kind, policy in STRONG.items())
    source = Source("s", modality="text", opener=lambda: Backbone({}, dim=1))
    assert not unmet(FixMatch, source, classes=2, unlabelled=True)
    monkeypatch.delitem(declared.STRONG, "text")
    with pytest.raises(InputError) as told:
        learn(
            Candidate(FixMatch(), source),
            Views([], [], {"s": source}, Store(Path())),
            np.arange(4),
            np.arange(4) % 2,
            classes=2,
            seed=0,
            target=Target(np.arange(2)),
        )
    assert str(told.value).startswith("Method 'fixmatch' needs a source whose inputs can be augmented (image, text, tabular); 's' is not one.")

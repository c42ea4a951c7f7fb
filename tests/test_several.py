"""Several tasks over one trunk: closed forms of the balances, labels that are missing, splits, and worlds where sharing is known to help or to harm."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import headstart as hs
from headstart.activations.store import Store
from headstart.contract_method import check_method, tiny_source
from headstart.core import Backbone, Batch, ColumnInput, Domain, Inspection, Net, Source, Task
from headstart.export import Predictor
from headstart.methods.method import Criterion
from headstart.methods.model.multitask import MultiTask, Part, masked, surgery, tempered
from headstart.modality import tabular
from headstart.several import multitask
from headstart.stacking import Drawn, labelled, splits, stacked
from headstart.train import fit

PARTS = (Part("kind", 3), Part("age", 0))


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def joint(method: MultiTask, n: int = 30) -> tuple[Net, torch.Tensor, torch.Tensor]:
    """A net for a task of three classes and one of numbers, and a batch in which each label is missing for some."""
    x = numbers(n, 3, 8, 8)
    y = np.stack([np.arange(n) % 3, np.random.default_rng(1).normal(size=n)], axis=1)
    y[:5, 0] = np.nan
    y[8:14, 1] = np.nan
    with torch.no_grad():
        features = tiny_source().backbone(x).double().numpy()
    net = method.build(tiny_source(), features=features, y=y, classes=0, seed=0).eval()
    return net, x, torch.from_numpy(y).float()


def gradients(term: torch.Tensor, net: Net) -> torch.Tensor:
    found = torch.autograd.grad(term, [*net.body.parameters(), *net.head.parameters()], retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def test_one_task_alone_obeys_the_contract() -> None:
    check_method(MultiTask)
    check_method(MultiTask(depth=2, balance="surgery"))


def test_labels_that_are_missing_are_ignored_as_if_their_rows_were_dropped() -> None:
    method = MultiTask(depth=2, parts=PARTS)
    net, x, y = joint(method)
    whole = method.loss(net, Batch(x, y), Criterion(torch.ones(0)))
    for column, name in enumerate(("kind", "age")):
        have = ~torch.isnan(y[:, column])
        dropped = method.loss(net, Batch(x[have], y[have]), Criterion(torch.ones(0)))
        torch.testing.assert_close(gradients(whole[name], net), gradients(dropped[name], net), atol=1e-6, rtol=1e-4)
        other = torch.where(have.view(-1, 1, 1, 1), x, numbers(*x.shape, seed=9))
        changed = method.loss(net, Batch(other, y), Criterion(torch.ones(0)))
        assert torch.equal(changed[name], whole[name])  # what a case without the label holds does not matter, bit for bit


def test_a_batch_without_a_label_of_a_task_teaches_it_nothing() -> None:
    method = MultiTask(depth=2, parts=PARTS, balance="uncertainty")
    net, x, y = joint(method)
    y[:, 1] = torch.nan
    term = method.loss(net, Batch(x, y), Criterion(torch.ones(0)))["age"]
    assert term.item() == 0.0
    assert not torch.count_nonzero(gradients(term, net))


def test_a_tasks_loss_is_that_of_pytorch_on_its_own_rows() -> None:
    output, y = numbers(6, 3), torch.tensor([0.0, torch.nan, 2.0, 1.0, torch.nan, 1.0])
    have = ~torch.isnan(y)
    weights = torch.tensor([1.0, 0.5, 2.0])
    expected = nn.functional.cross_entropy(output[have], y[have].long(), weight=weights)
    torch.testing.assert_close(masked(output, y, PARTS[0], weights), expected)


def test_heads_start_from_a_probe_of_the_cases_that_have_the_label() -> None:
    from headstart.methods.model.tuned import probed

    net, x, y = joint(MultiTask(parts=PARTS))
    with torch.no_grad():
        features = tiny_source().backbone(x).double().numpy()
    have = ~np.isnan(y[:, 0].numpy())
    alone = probed(features[have], y[have, 0].numpy().astype(int), classes=3)
    torch.testing.assert_close(net.head.linear.weight[:3], alone.weight)


@pytest.mark.parametrize(("part", "best"), [(Part("kind", 3), lambda loss: math.log(2 * loss)), (Part("age", 0), math.log)])
def test_uncertainty_is_least_where_calculus_says_so(part: Part, best: object) -> None:
    loss = 0.37
    log_variance = torch.tensor(best(loss), requires_grad=True)  # type: ignore[operator]
    value = tempered(torch.tensor(loss), log_variance, part)
    value.backward()
    assert log_variance.grad.item() == pytest.approx(0.0, abs=1e-6)  # type: ignore[union-attr]
    assert value.item() == pytest.approx(0.5 + 0.5 * best(loss), abs=1e-6)  # type: ignore[operator]


def test_uncertainty_learns_a_larger_variance_for_a_task_of_pure_noise() -> None:
    method = MultiTask(depth=2, parts=(Part("noise", 0), Part("signal", 0)), balance="uncertainty", steps=60, rate=3e-2)
    x = numbers(60, 3, 8, 8)
    with torch.no_grad():
        features = tiny_source().backbone(x).double().numpy()
    signal = features @ np.linspace(-1, 1, 10)
    y = np.stack([np.random.default_rng(3).normal(size=60), (signal - signal.mean()) / signal.std()], axis=1)
    net = method.build(tiny_source(), features=features, y=y, classes=0, seed=0)
    kept: list[torch.Tensor] = []
    fit(method, net, features_in(x), y, seed=0, keep=(60, lambda c: kept.append(c.net["scaffold.balance.log_variance"])))
    assert kept[0][0] > kept[0][1]


def test_log_variances_go_far_in_the_steps_there_are() -> None:
    method = MultiTask(depth=2, parts=(Part("easy", 0), Part("noise", 0)), balance="uncertainty")
    x = numbers(60, 3, 8, 8)
    with torch.no_grad():
        features = tiny_source().backbone(x).double().numpy()
    y = np.stack([0.01 * np.random.default_rng(4).normal(size=60), np.random.default_rng(3).normal(size=60)], axis=1)
    kept: list[torch.Tensor] = []
    net = method.build(tiny_source(), features=features, y=y, classes=0, seed=0)
    fit(method, net, features_in(x), y, seed=0, keep=(100, lambda c: kept.append(c.net["scaffold.balance.log_variance"])))
    assert kept[0][0] < -2.0  # .05 from 0 at the head's rate; its optimum is -9


def features_in(x: torch.Tensor) -> np.ndarray:
    return np.asarray(x.numpy())


def test_surgery_projects_conflicting_gradients_by_hand_and_leaves_others_alone() -> None:
    a, b = torch.tensor([2.0, 0.0, 1.0]), torch.tensor([-1.0, 3.0, 0.0])
    inner = -2.0
    by_hand = (a - inner / 10.0 * b) + (b - inner / 5.0 * a)
    torch.testing.assert_close(surgery(torch.stack([a, b])), by_hand)
    torch.testing.assert_close(surgery(torch.stack([a, -b])), a - b)
    three = numbers(3, 7)
    torch.manual_seed(0)
    one = surgery(three)
    torch.manual_seed(0)
    torch.testing.assert_close(surgery(5.0 * three), 5.0 * one, rtol=1e-5, atol=1e-5)  # it commutes with a change of units


def test_surgery_changes_the_trunk_and_leaves_each_head_its_own_gradient() -> None:
    plain, cut = (MultiTask(depth=2, parts=PARTS, balance=b) for b in ("uniform", "surgery"))
    net, x, y = joint(cut)
    terms = cut.loss(net, Batch(x, y), Criterion(torch.ones(0)))
    apart = [gradients(term, net) for term in terms.values()]
    size = sum(p.numel() for p in net.body.parameters())
    for p in net.parameters():
        p.grad = None
    cut.descend(cut.loss(net, Batch(x, y), Criterion(torch.ones(0))), net, 0.5)
    got = torch.cat([p.grad.flatten() for p in [*net.body.parameters(), *net.head.parameters()]])
    torch.testing.assert_close(got[:size], surgery(0.5 * torch.stack([g[:size] for g in apart])), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(got[size:], 0.5 * (apart[0] + apart[1])[size:], atol=1e-6, rtol=1e-4)
    assert plain.balance == "uniform"


@pytest.mark.parametrize("balance", ["uniform", "uncertainty", "surgery"])
def test_joint_training_repeats_bit_for_bit(balance: str) -> None:
    method = MultiTask(depth=2, parts=PARTS, balance=balance, steps=4)
    states = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        net, x, y = joint(method)
        states.append(fit(method, net, x.numpy(), y.numpy(), seed=0)[0].state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    assert not [name for name in states[0] if name.startswith("scaffold")]


def test_sampling_gives_tasks_the_odds_that_their_sizes_ask_for() -> None:
    y = torch.full((20, 2), torch.nan)
    y[:16, 0], y[16:, 1] = 1.0, 1.0
    shares = {"equal": 0.5, "sqrt": 4 / 6}
    for sampling, share in shares.items():
        odds = Drawn(sampling=sampling).odds(y, torch.ones(0))  # type: ignore[arg-type]
        assert odds is not None
        assert odds[:16].sum().item() == pytest.approx(share)
        assert odds.sum().item() == pytest.approx(1.0)
    assert Drawn().odds(y, torch.ones(0)) is None
    with pytest.raises(hs.InputError, match=r"sampling='even' is unknown. Choose one of proportional, sqrt, equal\."):
        Drawn(sampling="even")  # type: ignore[arg-type]


def tables(**targets: dict[int, object]) -> tuple[dict[str, Task], dict[str, Inspection]]:
    """Tasks over rows numbered by their content."""
    tasks, inspections = {}, {}
    for name, by_row in targets.items():
        labels = () if all(isinstance(v, float) for v in by_row.values()) else tuple(sorted({str(v) for v in by_row.values()}))
        task = Task("classification" if labels else "regression", "tabular", Domain(name, [{"v": float(i)} for i in by_row], list(by_row.values())), labels)
        tasks[name], inspections[name] = task, Inspection(tuple(str(i) for i in by_row))
    return tasks, inspections


def test_an_input_of_two_tasks_is_one_row_with_two_labels() -> None:
    stack = stacked(*tables(kind={1: "a", 2: "b", 3: "a"}, age={3: 30.0, 4: 40.0}))
    assert stack.digests == ("1", "2", "3", "4")
    np.testing.assert_array_equal(stack.y, [[0, np.nan], [1, np.nan], [0, 30.0], [np.nan, 40.0]])
    assert stack.groups is None
    assert stack.parts == (Part("kind", 2), Part("age", 0))


def test_labels_that_are_none_or_not_a_number_are_left_out_of_their_task() -> None:
    task = Task("regression", "tabular", Domain("t", [1, 2, 3], [1.0, math.nan, None]))
    assert list(labelled(task).target.x) == [1]


def test_groups_of_one_name_are_one_in_all_tasks_and_never_split() -> None:
    tasks, inspections = tables(kind={i: "ab"[i % 2] for i in range(40)}, age={i: float(i) for i in range(40, 80)})
    groups = {"kind": [f"p{i // 4}" for i in range(40)], "age": [f"p{i // 4}" for i in range(40)]}
    tasks = {n: Task(t.kind, t.modality, Domain(n, t.target.x, t.target.y, groups[n]), t.labels) for n, t in tasks.items()}
    stack = stacked(tasks, inspections)
    assert stack.groups is not None
    of = {int(d): g for d, g in zip(stack.digests, stack.groups, strict=True)}
    assert of[0] == of[3] == of[40] == of[43] != of[4]  # p0 in the one task, and in the other
    pairs = splits(stack, k=3, repeats=2, seed=0)
    assert all(not set(stack.groups[a]) & set(stack.groups[b]) for a, b in pairs)


def test_splits_test_each_row_once_and_spread_every_class_of_every_task() -> None:
    kinds = {i: "abc"[i % 3] for i in range(60)}
    rare = {i: "yes" if i % 6 == 0 else "no" for i in range(40, 100)}
    stack = stacked(*tables(kind=kinds, rare=rare))  # type: ignore[arg-type]
    pairs = splits(stack, k=5, repeats=2, seed=0)
    assert len(pairs) == 10
    for repeat in (pairs[:5], pairs[5:]):
        assert sorted(np.concatenate([test for _, test in repeat]).tolist()) == list(range(100))
    for _, test in pairs:
        assert [int((stack.y[test, 0] == c).sum()) for c in range(3)] == [4, 4, 4]
        assert int((stack.y[test, 1] == 1).sum()) == 2  # of ten


def test_a_class_that_cannot_stand_in_two_folds_is_named() -> None:
    stack = stacked(*tables(kind={0: "a", **dict.fromkeys(range(1, 9), "b")}, age={i: float(i) for i in range(9)}))  # type: ignore[arg-type]
    with pytest.raises(hs.InputError, match=r"Class 'a' of 'kind' has too few cases to stand in two folds"):
        splits(stack, k=5, repeats=1, seed=0)


COLUMNS = tuple(f"c{i}" for i in range(30))


def narrow(width: int) -> Source:
    """A bottleneck: one linear stage of so many units on thirty columns, random weights."""
    torch.manual_seed(1)
    body = Backbone({"one": nn.Linear(30, width)}, dim=width, preprocess=ColumnInput(COLUMNS, json.dumps([[c] for c in COLUMNS]))).eval()
    return Source(
        f"narrow {width}", parameters=31 * width, dim=width, stages=("one",), modality="tabular", tune_cuts=(0,), opener=lambda: body, digest=lambda: "n"
    )


def rows(x: np.ndarray) -> list[dict[str, float]]:
    return [dict(zip(COLUMNS, map(float, row), strict=True)) for row in x]


def drawn(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 30)).astype(np.float32)


def side(x: np.ndarray, name: str) -> Task:
    """On which side of a plane through 0 a row lies; the plane takes all thirty columns to tell."""
    return Task("classification", "tabular", Domain(name, rows(x), ["yes" if v > 0 else "no" for v in x.sum(axis=1)]), ("no", "yes"))


def amount(x: np.ndarray, name: str, along: np.ndarray) -> Task:
    """How far a row lies along a direction."""
    return Task("regression", "tabular", Domain(name, rows(x), (x @ along).astype(float).tolist()))


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.several.default_root", lambda: tmp_path / "store")
    assert Store(tmp_path / "store").root


METHOD = MultiTask(rate=3e-2, steps=100, decay=1.0)


def test_where_tasks_share_structure_the_small_one_gains() -> None:
    x = drawn(380)
    tasks = {"few": side(x[:80], "few"), "many": amount(x[80:], "many", np.ones(30))}
    found = multitask(tasks, narrow(1), budget="30m", seed=0, method=METHOD)  # half an hour buys three repeats of the folds
    few = found.task("few")
    assert (few.kind, few.n, found.rows, found.shared) == ("classification", 80, 380, 0)
    assert few.verdict.decision == "transfer"
    assert few.verdict.gain == pytest.approx(few.together.value - few.single.value)
    assert few.verdict.interval[0] > 0


def test_where_tasks_want_other_trunks_the_guard_says_so_and_ships_them_alone() -> None:
    x = drawn(200)
    tasks = {name: amount(x, name, np.eye(30)[i]) for i, name in enumerate(("first", "second"))}
    found = multitask(tasks, narrow(1), budget="5m", seed=0, method=METHOD)
    assert (found.rows, found.shared) == (200, 200)
    assert [(t.verdict.decision, t.verdict.ship) for t in found.tasks] == [("do not transfer", "baseline")] * 2
    assert all(t.single.value > 0.9 > 0.7 > t.together.value for t in found.tasks)  # one unit holds half of two directions


def test_a_gain_below_the_margin_ships_each_task_alone_for_classes_and_for_numbers() -> None:
    x = drawn(60)
    tasks = {"side": side(x, "side"), "sum": amount(x[:40], "sum", np.ones(30))}
    found = multitask(tasks, narrow(1), budget="5m", seed=0, method=MultiTask(steps=5), margin=0.9)
    assert {t.metric for t in found.tasks} == {"balanced accuracy", "R2"}
    assert [(t.verdict.margin, t.verdict.decision, t.verdict.ship) for t in found.tasks] == [(0.9, "do not transfer", "baseline")] * 2


def test_findings_are_kept_models_load_and_folds_are_not_made_twice(tmp_path: Path) -> None:
    x = drawn(48)
    features = [[c] for c in COLUMNS]
    made = tabular.network(features, seed=0)
    stages = tuple(made.stages)
    source = Source(
        "table", dim=made.dim, stages=stages, modality="tabular", tune_cuts=(0, 1), opener=lambda: made, recipe={"library": "table", "features": features}
    )
    tasks = {"side": side(x, "side"), "sum": amount(x[:40], "sum", np.ones(30))}
    method = MultiTask(steps=5)
    found = multitask(tasks, source, budget="5m", seed=0, method=method, out=tmp_path / "run")
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "folds").iterdir()}
    assert len(files) == 15  # five folds of two tasks alone, and of both together
    again = multitask(tasks, source, budget="5m", seed=0, method=method, out=tmp_path / "run")
    assert again == found
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "folds").iterdir()} == files
    values = json.loads((tmp_path / "run" / "multitask.json").read_text())
    assert [t["name"] for t in values["tasks"]] == ["side", "sum"]
    said = found.predict(rows(x[:3]))
    assert {type(v[0]).__name__ for v in said.values()} == {"Prediction", "PredictedValue"}
    for i, name in enumerate(found.models):
        assert Predictor.load(tmp_path / "run" / f"model{i}").predict(rows(x[:3])) == said[name]


def test_what_cannot_be_learnt_together_is_refused_in_one_line() -> None:
    x = np.zeros((8, 30), dtype=np.float32)
    one = Task("regression", "tabular", Domain("t", rows(x), [0.0] * 8))
    with pytest.raises(hs.InputError, match=r"1 task\(s\) were given; learning together takes two or more"):
        multitask({"one": one}, narrow(2), budget="1m", seed=0)
    text = Task("regression", "text", Domain("t", ["a"] * 8, [0.0] * 8))
    with pytest.raises(hs.InputError, match="Source 'narrow 2' is for tabular, and the task is text"):
        multitask({"one": one, "two": text}, narrow(2), budget="1m", seed=0)
    with pytest.raises(hs.InputError, match="The margin is 2; the smallest gain that matters lies between 0 and 1"):
        multitask({"one": one, "two": one}, narrow(2), budget="1m", seed=0, margin=2.0)

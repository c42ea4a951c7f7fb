"""From a finished run alone to a target: worlds in which each move is known to repair, what is shipped, what is repeated, what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from torch import nn

import headstart as hs
from deep_worlds import spurious
from headstart.activations.store import Store
from headstart.adaptation import SOURCE_ONLY, Adaptation, Side
from headstart.adapting import alone, differences, trying
from headstart.adapting.moving import EM, BlackBox, ByInformation, OwnMoments, last_linear, linear, opened, served
from headstart.adapting.origin import Origin, is_batchnorm, origin_of
from headstart.core import Backbone, ColumnInput, Net, Source
from headstart.evaluate import scale
from headstart.export import Predictor, assembled
from headstart.learner import moved, outputs
from headstart.methods.features import LogisticPath, RidgeLOO
from headstart.methods.features.scaling import LiveScaler
from headstart.methods.method import Start, View
from headstart.methods.relations import CORAL, LabelShiftEM, ScaledByDomain
from headstart.methods.relations.deep import SHOT, OwnStatistics
from headstart.methods.relations.label_shift import correction, reweighed
from headstart.terminal import write_report
from headstart.train import fit, predict_logits
from headstart.views import Views
from test_adapting import NAMES, even, table
from test_report_adapted import adaptation

BUDGET = "1h"


@pytest.fixture(scope="module", autouse=True)
def short_plan() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trying, "TIERS", ((0.0, ("nn-weights",)),))
        patch.setattr(trying, "RAW", {"tabular": ()})
        patch.setattr(trying, "PER_DEEP", 1e9)
        patch.setattr(trying, "REPEATS", 1)
        patch.setattr(differences, "MAPPED", 30)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adaptation between tables in three classes: a ridge head on the columns."""
    out = tmp_path_factory.mktemp("free") / "run"
    hs.adapt(table("here", even(120), seed=1), table("there", even(60), seed=2), budget=BUDGET, seed=0, out=out)
    return out


def squeezed(name: str, n: int, *, seed: int, step: int = 1) -> hs.Task:
    """The classes of ``table``, each column with a factor and a shift of its own; every so many-th label."""
    task = table(name, even(n), seed=seed)
    rows = [{c: v * f + m for (c, v), f, m in zip(row.items(), (0.2, 5.0, 1.0, 1.0), (3.0, -9.0, 0.0, 0.0), strict=True)} for row in task.target.x]
    y = [label if i % step == 0 else None for i, label in enumerate(task.target.y or ())]
    return dataclasses.replace(task, target=hs.Domain(name, rows, y), labels=())


def predicted(model: Any, x: np.ndarray, heat: float) -> np.ndarray:
    return scale(outputs(model, x, classes=3), heat)


@pytest.fixture(scope="module")
def head() -> tuple[np.ndarray, np.ndarray, RidgeLOO]:
    dice, y = np.random.default_rng(0), np.arange(90) % 3
    x = dice.normal(size=(90, 4)) + 2.0 * np.eye(3, 4)[y]
    return x, y, RidgeLOO().fit(x, y)


def test_shares_are_corrected_behind_the_temperature_in_heads_and_in_nets_alike(head: tuple[np.ndarray, np.ndarray, RidgeLOO]) -> None:
    x, y, model = head
    rare = np.concatenate([np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:5]])
    heat, view = 2.5, View("pooled", "s", (1,))
    layer = linear(model, 3)
    assert layer is not None
    net = Net(nn.Sequential(), layer)
    p = predicted(model, x, heat)
    found = EM(Start(model, view, ""), heat, 3).moved(x[rare], seed=0, deadline=np.inf)
    behind = EM(Start(net, view, ""), heat, 3).moved(x[rare].astype(np.float32), seed=0, deadline=np.inf)
    shares = predicted(found, x[rare], heat).mean(axis=0)  # a fixed point of EM: the mean of corrected probabilities are the shares
    assert np.allclose(predicted(found, x, heat), reweighed(p, 3.0 * shares), atol=1e-3)
    assert np.allclose(predicted(behind, x.astype(np.float32), heat), predicted(found, x, heat), atol=1e-4)
    assert shares[0] > 0.8 > 0.05 > shares[2]


def test_the_shares_of_another_target_are_taken_back_before_new_ones_are_sought(head: tuple[np.ndarray, np.ndarray, RidgeLOO]) -> None:
    """A run that shipped a correction for its own target: its probabilities imply that target's shares, and no others."""
    x, y, _ = head
    rows = np.concatenate([np.flatnonzero(y == 0), np.flatnonzero(y > 0)[:20]])
    first = LabelShiftEM(RidgeLOO()).fit(x, y, x[rows])
    again = EM(Start(first, View("items"), ""), 1.0, 3).moved(x, seed=0, deadline=np.inf)
    assert outputs(first, x, classes=3).mean(axis=0)[0] > 0.36  # a third before
    fresh = EM(Start(RidgeLOO().fit(x, y), View("items"), ""), 1.0, 3).moved(x, seed=0, deadline=np.inf)
    assert np.allclose(outputs(again, x, classes=3), outputs(fresh, x, classes=3), atol=1e-6)


@pytest.mark.parametrize("heat", [1.0, 2.5])
def test_what_was_corrected_for_one_target_is_corrected_anew_for_the_next_in_heads_and_in_nets_read_back(
    heat: float, head: tuple[np.ndarray, np.ndarray, RidgeLOO]
) -> None:
    """An adapted run is adapted again: from its model the same is reached as from the model before, whatever the target between them was."""
    x, y, model = head
    x = x.astype(np.float32)
    layer = linear(model, 3)
    assert layer is not None
    rare = np.concatenate([np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:5]])
    half = np.concatenate([np.flatnonzero(y == 2), np.flatnonzero(y == 0)[:20]])
    confusion = tuple(tuple(int(((model.predict(x) == i) & (y == j)).sum()) for j in range(3)) for i in range(3))
    network = Backbone({"columns": nn.Identity()}, dim=4, preprocess=ColumnInput(("a", "b", "c", "d"))).eval()
    for start in (model, Net(nn.Sequential(), layer)):
        fresh = EM(Start(start, View("items"), ""), heat, 3).moved(x[half], seed=0, deadline=np.inf)
        first = EM(Start(start, View("items"), ""), heat, 3).moved(x[rare], seed=0, deadline=np.inf)
        if isinstance(first, Net):
            state = {name: value.clone() for name, value in first.state_dict().items()}
            first = assembled(network, View("pooled", "n", (1,)), state, outputs=3, dropout=False)
            assert np.allclose(correction(last_linear(opened(served(first)).head)), correction(last_linear(first.head)))
        again = EM(Start(first, View("items"), ""), heat, 3).moved(x[half], seed=0, deadline=np.inf)
        assert np.allclose(predicted(again, x, heat), predicted(fresh, x, heat), atol=1e-3)
        boxed = [BlackBox(Start(one, View("items"), ""), heat, 3, confusion).moved(x[half], seed=0, deadline=np.inf) for one in (start, first)]
        assert np.allclose(predicted(boxed[0], x, heat), predicted(boxed[1], x, heat), atol=1e-3)
    kept = linear(EM(Start(model, View("items"), ""), 1.0, 3).moved(x[rare], seed=0, deadline=np.inf), 3)
    assert kept is not None
    assert correction(kept)[2] < correction(kept)[0]


def test_confusions_that_a_run_wrote_down_tell_the_shares(head: tuple[np.ndarray, np.ndarray, RidgeLOO]) -> None:
    x, y, model = head
    guess = model.predict(x)
    confusion = tuple(tuple(int(((guess == i) & (y == j)).sum()) for j in range(3)) for i in range(3))
    rows = np.concatenate([np.flatnonzero(y == 1), np.flatnonzero(y == 2)[:10]])
    found = BlackBox(Start(model, View("items"), ""), 1.0, 3, confusion).moved(x[rows], seed=0, deadline=np.inf)
    assert np.allclose(found.factors / 3, [0.0, 0.75, 0.25], atol=0.1)
    none = BlackBox(Start(model, View("items"), ""), 1.0, 3, ((10, 10, 10),) * 3)
    with pytest.raises(hs.InputError, match="tells some classes hardly apart"):
        none.moved(x, seed=0, deadline=np.inf)


@pytest.mark.parametrize("kind", [RidgeLOO, LogisticPath])
def test_exchanging_moments_is_scaling_by_domain_without_the_source(kind: type[Any], head: tuple[np.ndarray, np.ndarray, RidgeLOO]) -> None:
    x, y, _ = head
    x = np.column_stack([x, np.zeros(90)])  # a dead feature
    other = x * [3.0, 0.1, 1.0, 20.0, 1.0] + [5.0, 0.0, -7.0, 1.0, 0.0]
    free = OwnMoments(Start(kind().fit(x, y), View("items"), "")).moved(other, seed=0, deadline=np.inf)
    whole = ScaledByDomain(kind()).fit(x, y, other)
    assert np.allclose(outputs(free, other, classes=3), whole.predict_proba(other), atol=1e-4)
    pipeline = make_pipeline(LiveScaler(), RidgeCV()).fit(x, x[:, 0])
    numbers = OwnMoments(Start(pipeline, View("items"), "")).moved(other, seed=0, deadline=np.inf)
    assert np.allclose(numbers.predict(other), pipeline.predict(x), atol=1e-8)
    assert not np.allclose(pipeline.predict(other), pipeline.predict(x), atol=1.0)  # the run's own model is left alone


def test_the_head_of_a_method_that_leaves_the_target_alone_goes_on_as_a_layer(head: tuple[np.ndarray, np.ndarray, RidgeLOO]) -> None:
    x, y, _ = head
    coral = CORAL().fit(x, y, x + 1.0)
    layer = linear(coral, 3)
    assert layer is not None
    assert np.allclose(predict_logits(Net(nn.Sequential(), layer), x.astype(np.float32)).argmax(axis=1), coral.predict(x))
    assert linear(ScaledByDomain().fit(x, y, x + 1.0), 3) is None  # moves target cases first


def normed(n: int, *, seed: int) -> tuple[Predictor, hs.Task]:
    """A net on columns behind a BatchNorm, fitted in one domain; a target with another gain and level of every column."""
    xs, ys, xt, yt = spurious(seed=seed, n=n, shift=0.0)
    d = xs.shape[1]
    rng = np.random.default_rng(1)
    xs, xt = xs.astype(np.float32), (xt * rng.uniform(0.3, 3.0, d) + rng.normal(scale=3.0, size=d)).astype(np.float32)
    names = [f"c{i}" for i in range(d)]
    look = ColumnInput(tuple(names), json.dumps([[name] for name in names]))
    body = Backbone({"columns": nn.Identity(), "norm": nn.BatchNorm1d(d)}, dim=d, preprocess=look).eval()
    source = Source("n", modality="tabular", dim=d, stages=("columns", "norm"), opener=lambda: body, digest=lambda: "n", tune_cuts=(1,))
    method = OwnStatistics(steps=60)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = method.build(source, features=xs, y=ys, classes=3, seed=0)
    net = fit(method, net, xs, ys, seed=0)[0]
    rows = [{name: float(v) for name, v in zip(names, row, strict=True)} for row in xt]
    predictor = Predictor(NAMES, "tabular", {}, net, View("raw", "n", (1,)), source, {"features": [[name] for name in names]}, 1.0, 0.0)
    return predictor, hs.Task("classification", "tabular", hs.Domain("there", rows, [NAMES[k] for k in yt]))


def ran(predictor: Predictor, **changes: Any) -> Adaptation:
    """A finished run that shipped that model."""
    labels = tuple(predictor.labels)
    sides = (Side("here", 120, 120, 30, dict.fromkeys(labels, 40)),)
    return dataclasses.replace(adaptation(labels or ("a", "b")), labels=labels, modality=predictor.modality, sources=sides, model=predictor, **changes)


def test_another_gain_of_every_channel_is_repaired_from_the_net_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(alone.PER, ByInformation, 1e9)
    predictor, target = normed(90, seed=0)
    before = {name: value.clone() for name, value in predictor.model.state_dict().items()}
    found = hs.adapt(ran(predictor), target, budget=BUDGET, seed=0, read_labels=True)
    right = {c.name: c.scored.value for c in found.candidates if c.scored is not None}
    assert set(right) == {SOURCE_ONLY, "em", "scaled", "adabn", "tent"}
    assert min(right["adabn"], right["tent"]) > right[SOURCE_ONLY] + 0.15
    assert found.verdict.decision == "undecided"
    assert found.shipped == SOURCE_ONLY
    assert found.source_free
    assert found.before is None
    assert found.map is not None
    assert all(torch.equal(value, before[name]) for name, value in predictor.model.state_dict().items())
    known = dataclasses.replace(target, target=dataclasses.replace(target.target, y=[v if i % 2 == 0 else None for i, v in enumerate(target.target.y or ())]))
    tested = hs.adapt(ran(predictor), known, budget=BUDGET, seed=0, target_labels="some")
    assert tested.verdict.method == "test"
    assert {"adabn", "tent", "labelled target only"} < {c.name for c in tested.candidates}
    assert tested.verdict.decision == "adapt"


def test_shot_pulls_the_classes_of_a_moved_target_back_under_a_frozen_classifier(head: tuple[np.ndarray, np.ndarray, RidgeLOO]) -> None:
    """A linear head becomes a layer, and a stage that did nothing learns to undo a shift that half of the cases fall over."""
    x, y, model = head
    layer = linear(model, 3)
    assert layer is not None
    stage = nn.Linear(4, 4)
    with torch.no_grad():
        stage.weight.copy_(torch.eye(4))
        stage.bias.zero_()
    net = opened(Net(nn.Sequential(stage), layer))
    there = (x + 1.2 * np.array([-1.0, 1.0, -0.3, 0.0])).astype(np.float32)
    after = moved(SHOT(steps=100, rate=2e-2), net, there, seed=0)
    right = [float(np.mean(predict_logits(one, there).argmax(axis=1) == y)) for one in (net, after)]
    assert right[1] > right[0] + 0.05
    assert torch.equal(after.head.get_parameter("linear.weight"), layer.weight)


def test_a_run_alone_is_adapted_to_columns_in_other_units_and_repeats_its_bytes(run: Path, tmp_path: Path) -> None:
    target = squeezed("far", 60, seed=3, step=2)
    found = hs.adapt(run, target, budget=BUDGET, seed=0, target_labels="some", out=tmp_path / "one")
    assert found.verdict.decision == "adapt"
    assert found.shipped in {"scaled", "labelled target only"}
    scaled = found.candidate("scaled")
    assert scaled is not None
    assert scaled.target_score is not None
    assert scaled.target_score.value > 0.9
    assert hs.adapt(run, target, budget=BUDGET, seed=0, target_labels="some", out=tmp_path / "one") == found
    hs.adapt(run, target, budget=BUDGET, seed=0, target_labels="some", out=tmp_path / "two")
    assert (tmp_path / "two" / "adaptation.json").read_bytes() == (tmp_path / "one" / "adaptation.json").read_bytes()
    again = hs.load(tmp_path / "one")
    assert again == found
    assert again.predict(list(target.target.x)) == found.predict(list(target.target.x))
    page = write_report(tmp_path / "one").read_text(encoding="utf-8")
    assert "without its cases" in page
    third = hs.adapt(tmp_path / "one", squeezed("last", 30, seed=4), budget=BUDGET, seed=0)  # an adaptation goes on from an adaptation
    assert third.sources[0].name == "here"


def test_a_killed_run_goes_on_and_a_changed_model_is_another_run(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, calls = squeezed("far", 30, seed=3), []
    learn = trying.learn

    def counted(candidate: Any, *rest: Any, **more: Any) -> Any:
        calls.append(candidate)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return learn(candidate, *rest, **more)

    monkeypatch.setattr(trying, "learn", counted)
    with pytest.raises(KeyboardInterrupt):
        hs.adapt(run, target, budget=BUDGET, seed=0, out=tmp_path / "killed")
    hs.adapt(run, target, budget=BUDGET, seed=0, out=tmp_path / "killed")
    hs.adapt(run, target, budget=BUDGET, seed=0, out=tmp_path / "whole")
    assert (tmp_path / "killed" / "adaptation.json").read_bytes() == (tmp_path / "whole" / "adaptation.json").read_bytes()
    other = dataclasses.replace(origin_of(run).predictor, temperature=3.0)  # type: ignore[union-attr]
    with pytest.raises(hs.InputError, match="holds another run"):
        hs.adapt(ran(other), target, budget=BUDGET, seed=0, out=tmp_path / "whole")


def test_corrected_models_are_saved_and_read_back(head: tuple[np.ndarray, np.ndarray, RidgeLOO], tmp_path: Path) -> None:
    x, _, model = head
    predictor = Predictor(NAMES, "tabular", {}, model, View("items"), None, {}, 2.0, 0.0)
    corrected = EM(Start(model, View("items"), ""), 2.0, 3).moved(x, seed=0, deadline=np.inf)
    predictor.moved(corrected, View("items")).save(tmp_path / "model")
    assert np.array_equal(Predictor.load(tmp_path / "model").model.predict_proba(x), corrected.predict_proba(x))


def test_numbers_have_no_validator_and_their_model_is_shipped_as_it_is() -> None:
    dice = np.random.default_rng(0)
    x = dice.normal(size=(60, 2))
    rows = [{"a": float(3.0 * a + 5.0), "b": float(b)} for a, b in x]
    look = ColumnInput(("a", "b"), json.dumps([["a"], ["b"]]))
    body = Backbone({"columns": nn.Identity()}, dim=2, preprocess=look).eval()
    source = Source("c", modality="tabular", dim=2, stages=("columns",), opener=lambda: body, digest=lambda: "c", recipe={"features": [["a"], ["b"]]})
    model = make_pipeline(LiveScaler(), RidgeCV()).fit(x, x @ [1.0, 2.0])
    predictor = Predictor((), "tabular", {}, model, View("pooled", "c", (1,)), source, {}, 1.0, 0.5)
    target = hs.Task("regression", "tabular", hs.Domain("there", rows, (x @ [1.0, 2.0]).tolist()))
    found = hs.adapt(ran(predictor, kind="regression"), target, budget=BUDGET, seed=0, read_labels=True)
    assert [c.name for c in found.candidates] == [SOURCE_ONLY, "scaled"]
    assert found.verdict.decision == "undecided"
    assert found.choice.candidate == found.shipped == SOURCE_ONLY
    scaled = found.candidate("scaled")
    assert scaled is not None
    assert scaled.scored is not None
    assert scaled.scored.value > 0.95
    assert found.predict(rows[:1])[0].interval is not None  # type: ignore[union-attr]


def refused(*given: Any, **more: Any) -> str:
    with pytest.raises(hs.InputError) as told:
        hs.adapt(*given, **{"budget": BUDGET, "seed": 0, **more})
    assert "\n" not in str(told.value)
    return str(told.value)


def test_what_a_run_cannot_be_adapted_to_is_refused_in_one_line(run: Path, tmp_path: Path) -> None:
    target, labelled = squeezed("far", 30, seed=3), table("here", even(30), seed=1)
    assert refused([run, labelled], target) == "A run is a model without its cases, and cannot be pooled with other sources. Give it as the only source."
    assert refused(run, target, [Source("x")]) == "The run of here has a network of its own, or none. Leave --network out."
    texts = hs.Task("classification", "text", hs.Domain("words", ["a b"] * 20))
    assert refused(run, texts) == "The run of here was learned from rows, and words holds texts. Give a target of the run's own kind."
    strange = hs.Task("classification", "tabular", hs.Domain("else", [{"z": 1.0}] * 20))
    assert refused(run, strange) == "else has none of the columns that the run of here learned from ('c0', 'c1', 'c2', 'c3'). Rename them."
    dog = dataclasses.replace(target, target=dataclasses.replace(target.target, y=["dog"] * 30))
    assert "far has cases labelled 'dog', which no source has" in refused(run, dog, target_labels="some")
    assert refused(run, dataclasses.replace(target, target=target.target.take(range(5)))).startswith("far has 5 rows; a domain needs at least 10.")
    assert "holds no run of headstart transfer" in refused(tmp_path, target)
    assert refused(dataclasses.replace(ran(origin_of(run).predictor), model=None), target).startswith("This result holds no model to adapt.")  # type: ignore[union-attr]
    bare = dataclasses.replace(target, target=dataclasses.replace(target.target, x=[{"c0": row["c0"]} for row in target.target.x]))
    found = hs.adapt(run, bare, budget=BUDGET, seed=0)
    assert [w.labels for w in found.warned if w.kind == "columns"] == [("c1", "c2", "c3")]


def test_a_folder_and_what_is_read_from_it_are_the_same_origin_but_for_their_hashes(run: Path) -> None:
    assert origin_of(table("here", even(30), seed=1)) is None
    one, other = origin_of(run), origin_of(hs.load(run))
    assert isinstance(one, Origin)
    assert isinstance(other, Origin)
    assert (one.name, one.side, one.score) == (other.name, other.side, other.score)
    assert one.sha256 == origin_of(str(run)).sha256  # type: ignore[union-attr]
    assert other.sha256 == origin_of(hs.load(run)).sha256  # type: ignore[union-attr]


def test_the_last_stage_of_a_network_goes_on_from_a_linear_head_and_is_saved_whole(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    images = [dice.normal(60 + 120 * (i % 2), 40, (32, 32, 3)).clip(0, 255).astype(np.uint8) for i in range(6)]
    network = hs.sources.get("squeezenet")
    last = len(network.stages)
    plain = Predictor(("dark", "light"), "image", {}, None, View("pooled", network.name, (last,)), network, network.recipe, 1.0, 0.0)
    bare = Origin("here", "classification", plain, "", Side("here", 6, 6, 0, {"dark": 3, "light": 3}), None)
    source = bare.source
    assert source is not None
    (cut,) = source.tune_cuts  # no norm anywhere: the last stage that can learn
    assert any(True for _ in network.backbone.above(cut).parameters())
    assert not any(True for _ in network.backbone.above(cut + 1).parameters())
    views = Views(images, [str(i) for i in range(6)], {source.name: source}, Store(tmp_path / "store"))
    head = RidgeLOO().fit(views.array(plain.view), np.arange(6) % 2)
    origin = dataclasses.replace(bare, predictor=dataclasses.replace(plain, model=head))
    start = origin.net()
    assert start is not None
    assert origin.net(is_batchnorm) is None
    raw = views.array(start.view)[np.arange(6)]
    assert np.allclose(outputs(start.model, raw, classes=2), head.predict_proba(views.array(plain.view)), atol=0.02)  # float16 of what is stored
    model = ByInformation(start, steps=1).moved(raw, seed=0, deadline=np.inf)
    origin.predictor.moved(model, start.view).save(tmp_path / "model")
    assert np.allclose(Predictor.load(tmp_path / "model").output(images), outputs(model, raw, classes=2), atol=0.02)
    wide = dataclasses.replace(origin.predictor, view=View("pooled", network.name, (last - 1, last)))
    assert dataclasses.replace(origin, predictor=wide).net() is None

"""Bounds on the final model: what is counted, who is left out, what a run that goes on remembers, and the front of those that are not dominated."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import headstart as hs
from conftest import shorten
from headstart.activations.peak import peak_bytes, weights_bytes
from headstart.bounds import Refusal
from headstart.core import Domain, Source, Task
from headstart.fronts import Footprint, chosen, front
from headstart.gauge import Gauge
from headstart.learner import Candidate
from headstart.ledger import Ledger
from headstart.methods import FineTune, Probe, SimpleTable
from headstart.pretrain import source_from_table
from headstart.report import render
from headstart.result import Result
from headstart.sources import twin
from headstart.train import OutOfTime

NEVER = float("inf")


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ({"size": "20MB"}, {"size": 20e6}),
        ({"size": "20 MiB", "memory": "1.5GB"}, {"size": 20 * 2**20, "memory": 1.5e9}),
        ({"size": 1000, "latency": 0.02}, {"size": 1000, "latency": 0.02}),
        ({"latency": "20ms"}, {"latency": 0.02}),
        ({"latency": "500us"}, {"latency": 5e-4}),
        ({"latency": "2s"}, {"latency": 2.0}),
        ({}, {}),
    ],
)
def test_bounds_are_read_with_their_units(given: dict[str, Any], limits: dict[str, float]) -> None:
    assert hs.Bounds(**given).limits == pytest.approx(limits)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"size": "20ms"}, "--max-size 20ms is not a number of bytes above 0. Write it like 20MB."),
        ({"memory": "-1"}, "--max-memory -1 is not a number of bytes above 0. Write it like 500MB."),
        ({"size": 0}, "--max-size 0 is not a number of bytes above 0. Write it like 20MB."),
        ({"latency": "20MB"}, "--max-latency 20MB is not a time above 0. Write it like 20ms."),
        ({"latency": "soon"}, "--max-latency soon is not a time above 0. Write it like 20ms."),
    ],
)
def test_a_bound_that_cannot_be_read_is_refused_with_one_that_can(given: dict[str, Any], line: str) -> None:
    with pytest.raises(hs.InputError) as told:
        hs.Bounds(**given)
    assert str(told.value) == line


def test_a_refusal_says_every_bound_that_is_broken_and_by_how_much_the_worst() -> None:
    bounds = hs.Bounds(size="10MB", memory="1GB", latency="10ms")
    assert bounds.refusal(Footprint(10_000_000, 10**9, 0.01)) is None
    assert bounds.refusal(Footprint(15_000_000, 1, 0.03)) == Refusal(
        pytest.approx(2.0), "15 MB on disk, --max-size is 10 MB; 30 ms for an input, --max-latency is 10 ms"
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_comparing_every_pair_leaves(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, 5, (30, 3))  # few values, so that many are equal in one side or in all
    scores = {i: float(s) / 4 for i, s in enumerate(rows[:, 0])}
    taken = {i: Footprint(int(a), 7, float(b)) for i, (a, b) in enumerate(rows[:, 1:])}

    def beaten(i: int) -> bool:
        mine = np.array([-scores[i], taken[i].size, taken[i].latency])
        others = (np.array([-scores[j], taken[j].size, taken[j].latency]) for j in range(30))
        return any((other <= mine).all() and (other < mine).any() for other in others)

    points = front(scores, taken)
    assert sorted(p.trial for p in points) == list(range(30))
    assert {p.trial for p in chosen(points)} == {i for i in range(30) if not beaten(i)}


class Residual(nn.Module):
    """x + b(a(x)): while b runs, x, a's output and b's are alive."""

    def __init__(self, d: int, wide: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(d, wide), nn.Linear(wide, d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.b(self.a(x))


def test_the_peak_of_chains_and_skips_is_what_is_alive_at_the_worst_moment() -> None:
    narrow = nn.Sequential(nn.Linear(10, 1000), nn.Linear(1000, 10))
    assert peak_bytes(narrow, torch.ones(1, 10)) == 4 * (10 + 1000 + 10)
    assert peak_bytes(narrow, torch.ones(3, 10)) == 3 * 4 * (10 + 1000 + 10)
    assert peak_bytes(Residual(10, 1000), torch.ones(1, 10)) == 4 * (10 + 1000 + 10)
    assert peak_bytes(nn.Sequential(Residual(10, 1000), Residual(10, 50)), torch.ones(1, 10)) == 4 * (10 + 1000 + 10)
    deep = nn.Sequential(*(nn.Linear(10, 10) for _ in range(50)))
    assert peak_bytes(deep, torch.ones(1, 10)) == 4 * (10 + 10 + 10)  # what lies behind is gone


def test_views_and_weights_are_not_counted_twice() -> None:
    assert peak_bytes(nn.Flatten(), torch.ones(1, 5, 5)) == 4 * 25
    tied = nn.Linear(4, 4)
    assert weights_bytes(tied, nn.ModuleList([tied, tied])) == 4 * (16 + 4)


def table(name: str, n: int, seed: int) -> Task:
    generator = np.random.default_rng(seed)
    a, b = generator.normal(size=(2, n))
    label = a * b + 0.1 * generator.normal(size=n) > 0
    rows = [{"a": float(u), "b": float(v)} for u, v in zip(a, b, strict=True)]
    return Task("classification", "tabular", Domain(name, rows, [str(v) for v in label]), ("False", "True"))


@pytest.fixture(scope="module")
def tables() -> tuple[Task, Source]:
    mine = table("mine", 80, 1)
    return mine, source_from_table(table("other", 150, 2), mine, seed=0)


def shortened(patch: pytest.MonkeyPatch) -> None:
    """A short run with two baselines, and no curve: what this file is not about."""
    shorten(patch, "linear", "svm")
    patch.setattr("headstart.evidence.CURVE_POINTS", 1)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    shortened(monkeypatch)


@pytest.fixture(scope="module")
def unbounded(tables: tuple[Task, Source], tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A run that asks for the front alone, and its folder."""
    folder = tmp_path_factory.mktemp("bounds") / "run"
    with pytest.MonkeyPatch.context() as patch:
        shortened(patch)
        return run(tables, bounds=hs.Bounds(), out=folder), folder


def run(tables: tuple[Task, Source], *, trials: int = 3, search: str = "random", **how: Any) -> Result:
    task, other = tables
    terms = hs.Terms(search=search, trials=trials, folds="3") if search else ""
    return hs.transfer(task, [other], budget="4m", seed=0, search=terms, methods=["knn"], **how)


def networks(result: Result, source: Source) -> dict[int, int]:
    """Bytes of the stages that each finished trial's predictions run through, counted from the source's own weights."""
    backbone, out = source.backbone, {}
    for trial in result.trials:
        if trial.source is None or trial.status != "complete":
            continue
        last = max(1, len(source.stages) - trial.params["back"])
        out[trial.number] = 4 * sum(p.numel() for stage in list(backbone.stages.values())[:last] for p in stage.parameters())
    return out


def test_no_trial_breaks_a_bound_and_what_is_left_out_counts_for_none(tables: tuple[Task, Source], short: None) -> None:
    limit = 40_000  # a linear baseline takes 35 kB, a ridge head with its network 11 to 29; nearest neighbours and the support vectors more than 100
    result = run(tables, bounds=hs.Bounds(size=limit))
    finished = [t for t in result.trials if t.status != "excluded"]
    left = [t for t in result.trials if t.status == "excluded"]
    assert {p.trial for p in result.front} == {t.number for t in finished if t.status == "complete"}
    assert all(p.size <= limit for p in result.front)
    assert {t.arm for t in left} == {"baseline", "frozen"}
    assert all(t.reason.endswith("--max-size is 40 kB") and not t.folds for t in left)
    assert {t.params["model"] for t in left if t.arm == "baseline"} == {"svm"}
    assert all(a.trial in {p.trial for p in result.front} for a in result.arms)
    assert len([t for t in finished if t.source is not None]) == 3
    assert result.bounds == {"size": limit}


def test_sizes_are_the_weights_that_prediction_needs_and_the_head(unbounded: tuple[Result, Path], tables: tuple[Task, Source]) -> None:
    result, folder = unbounded
    counted = networks(result, tables[1])
    assert len(result.front) == len(result.trials) > len(counted) > 0
    assert all(0 < point.size - counted.get(point.trial, 0) <= point.memory for point in result.front)
    again = hs.load(folder)
    assert isinstance(again, Result)
    assert again.front == result.front


def test_a_net_is_counted_exactly_before_it_is_trained(tables: tuple[Task, Source], tmp_path: Path) -> None:
    _, other = tables
    state = other.backbone.stages.state_dict().values()
    whole = sum(t.numel() * t.element_size() for t in state) + 4 * 2 * (other.backbone.dim + 1)
    candidate = Candidate(FineTune(), other)
    assert measured(tables, tmp_path).footprint(candidate, deadline=NEVER).size == whole
    assert measured(tables, tmp_path, size=whole).refusal(candidate, deadline=NEVER) is None
    assert measured(tables, tmp_path, size=whole - 1).refusal(candidate, deadline=NEVER) is not None


def measured(tables: tuple[Task, Source], folder: Path, **bounds: Any) -> Gauge:
    from headstart.activations.store import Store, default_root
    from headstart.modality.tabular import inspect
    from headstart.search import Arena
    from headstart.views import Views

    task, inspection = inspect(tables[0])
    views = Views(task.target.x, inspection.digests, {tables[1].name: tables[1]}, Store(default_root()), "tabular")
    arena = Arena(views, np.asarray(task.codes), 2, Ledger(folder / "folds"), 0)
    return Gauge(hs.Bounds(**bounds), arena, np.arange(60), Ledger(folder / "footprints"))


def test_what_was_measured_is_read_again_and_not_measured_anew(tables: tuple[Task, Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = [Candidate(Probe(), tables[1]), Candidate(FineTune(), tables[1]), Candidate(SimpleTable("linear"))]
    first = [measured(tables, tmp_path).footprint(one, deadline=NEVER) for one in candidates]
    monkeypatch.setattr("headstart.gauge._median", lambda run, cases: 1e9)
    assert [measured(tables, tmp_path).footprint(one, deadline=NEVER) for one in candidates] == first
    assert [one.latency for one in (measured(tables, tmp_path / "new").footprint(c, deadline=NEVER) for c in candidates)] == [2e9, 1e9, 1e9]
    elsewhere = [measured(tables, tmp_path / "new").footprint(one, deadline=NEVER) for one in candidates]
    assert [(one.size, one.memory) for one in elsewhere] == [(one.size, one.memory) for one in first]  # counted, so the same wherever


def test_cuts_of_one_network_are_measured_apart_and_settings_above_it_together(tables: tuple[Task, Source], tmp_path: Path) -> None:
    gauge = measured(tables, tmp_path)
    seen: list[int] = []
    for method in (FineTune(), FineTune(rate=2e-3), Probe(), Probe(back=1), Probe(back=1, head="knn")):
        gauge.footprint(Candidate(method, tables[1]), deadline=NEVER)
        seen.append(len(list((tmp_path / "footprints").glob("*.npz"))))
    assert list(itertools.pairwise([0, *seen])) == [(0, 1), (1, 1), (1, 3), (3, 5), (5, 6)]


def test_a_network_that_cannot_fit_is_neither_run_nor_given_a_head(tables: tuple[Task, Source], tmp_path: Path) -> None:
    gauge = measured(tables, tmp_path, size=1000)
    found = gauge.refusal(Candidate(Probe(), tables[1]), deadline=NEVER)
    assert found is not None
    assert found.why.endswith(" kB on disk before its head, --max-size is 1 kB")
    assert not (tmp_path / "footprints").exists()


def test_after_the_deadline_nothing_new_is_measured_and_what_was_is_still_read(tables: tuple[Task, Source], tmp_path: Path) -> None:
    first = measured(tables, tmp_path).footprint(Candidate(Probe(), tables[1]), deadline=NEVER)
    assert measured(tables, tmp_path).footprint(Candidate(Probe(), tables[1]), deadline=0.0) == first
    with pytest.raises(OutOfTime):
        measured(tables, tmp_path).footprint(Candidate(Probe(back=1), tables[1]), deadline=0.0)


def test_a_run_that_goes_on_ends_with_the_same_bytes_latency_among_them(
    unbounded: tuple[Result, Path], tables: tuple[Task, Source], short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = unbounded
    whole = (folder / "result.json").read_bytes()
    assert any(p["latency"] > 0 for p in json.loads(whole)["front"])
    (folder / "result.json").unlink()  # as if it had been killed just before its end
    monkeypatch.setattr("headstart.gauge._median", lambda run, cases: 1e9)
    run(tables, bounds=hs.Bounds(), out=folder)
    assert (folder / "result.json").read_bytes() == whole
    with pytest.raises(hs.InputError, match="holds another run \\(its bounds"):
        run(tables, out=folder, bounds=hs.Bounds(latency="11s"))


def test_where_nothing_without_transfer_fits_one_line_names_the_smallest_there_is(tables: tuple[Task, Source], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.plan._grid", lambda template: [SimpleTable("forest"), SimpleTable("linear")])
    monkeypatch.setattr("headstart.search.Search.propose", lambda *args, **how: None)
    with pytest.raises(hs.InputError) as told:
        run(tables, bounds=hs.Bounds(size="1kB"))
    line = str(told.value)
    assert line.startswith("No model without transfer fits, and without one no gain can be measured. The smallest is simple (model linear, strength 3): ")
    assert line.endswith(" kB on disk, --max-size is 1 kB. Raise the bound, in another --out.")
    assert "\n" not in line


def test_where_no_source_fits_the_baseline_is_shipped_and_the_smallest_source_is_named(tables: tuple[Task, Source], short: None) -> None:
    task, other = tables
    recipe = {**other.recipe, "hidden": (8192, 8)}  # its first stage alone takes 98 kB
    wide = dataclasses.replace(other, recipe=recipe, opener=lambda: twin(recipe, seed=0), digest=lambda: "wide", dim=8)
    result = run((task, wide), search="", bounds=hs.Bounds(size="40kB"))
    assert result.shipped == "baseline"
    assert result.sources == ()
    assert (
        f"No source fits. The smallest is frozen + head on {other.name} (head ridge, back 1, span 1): 98.3 kB on disk before its head, --max-size is 40 kB."
        in result.notes
    )
    assert "No transfer fits the bounds, so nothing is known of its gain." in result.notes
    page = render(result)
    assert "No transfer fits the bounds, so none was measured." in page
    assert "nothing of it fits the bounds" in page
    assert "the budget ended first" not in page.split("Learning curve")[0]

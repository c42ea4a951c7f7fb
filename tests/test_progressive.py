"""Progressive transfer: the family's two ends, its closed forms, and walks in worlds where the source is known to help or to harm."""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from headstart import plan
from headstart.bench import Bench, Silent, set_up
from headstart.contract_method import check_method, tiny_source
from headstart.core import Backbone, Batch, ColumnInput, Domain, Source, Task
from headstart.ledger import Ledger
from headstart.methods import Progressive, tuners
from headstart.methods.method import Criterion
from headstart.methods.model.tuned import probed
from headstart.modality import door
from headstart.result import Step
from headstart.search import Clock
from headstart.walk import walk

COLUMNS = ("a", "b", "c", "d")


def drawn(n: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of four columns, and classes that two of them decide together by the sign of their product: no linear model sees it, and few cases show it."""
    x = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(int)


def planted(kind: str) -> Source:
    """A source whose first stage knows the four quadrants ("helpful"), or sees two columns that decide nothing ("harmful")."""
    first, second = nn.Linear(4, 8), nn.Linear(8, 6)
    with torch.no_grad():
        torch.manual_seed(0)
        seen = torch.tensor([[1.0, 1, 0, 0], [-1, -1, 0, 0], [1, -1, 0, 0], [-1, 1, 0, 0]] if kind == "helpful" else [[0.0, 0, 1, 1], [0, 0, -1, -1]] * 2)
        first.weight.copy_(torch.cat([seen, seen]))
        first.bias.copy_(torch.cat([torch.zeros(4), -0.5 * torch.ones(4)]))
        second.weight.copy_(torch.eye(8)[:6] + 0.05 * torch.randn(6, 8))
        second.bias.zero_()
    body = Backbone(
        {"one": nn.Sequential(first, nn.ReLU()), "two": nn.Sequential(second, nn.ReLU())},
        dim=6,
        preprocess=ColumnInput(COLUMNS, json.dumps([[c] for c in COLUMNS])),
    ).eval()
    return Source(kind, parameters=94, dim=6, stages=("one", "two"), modality="tabular", tune_cuts=(0, 1), opener=lambda: body, digest=lambda: kind)


def ready(folder: Path, source: Source, *, n: int = 80) -> Bench:
    """A bench with the source ranked; its clock starts tomorrow, so that no deadline passes on a slow machine."""
    x, y = drawn(n, seed=1)
    rows = [dict(zip(COLUMNS, map(float, row), strict=True)) for row in x]
    task, inspection = door("tabular").inspect(Task("classification", "tabular", Domain("quadrants", rows, [str(c) for c in y]), ("0", "1")))
    clock = Clock(100.0, began=time.monotonic() + 86_400)
    return set_up(task, inspection, [source], folder=folder, clock=clock, observer=Silent(), seed=0, engine="torch")


def walked(bench: Bench, source: Source) -> tuple[Step, ...]:
    return walk(bench, Progressive(rate=1e-2, steps=50), source, deadline=np.inf)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_every_member_of_the_family_obeys_the_contract(share: float) -> None:
    check_method(Progressive(share=share, last=3), tiny_source())


def built(share: float, *, last: int = 4) -> nn.Module:
    features, y = np.random.default_rng(0).normal(size=(40, 10)), np.arange(40) % 2
    torch.manual_seed(3)
    return Progressive(share=share, last=last).build(tiny_source(), features=features, y=y, classes=2, seed=0)


def test_weights_start_on_the_line_from_fresh_ones_to_the_sources_and_its_ends_are_exact() -> None:
    ends = {share: built(share).body.state_dict() for share in (0.0, 0.25, 1.0)}
    source = tiny_source().backbone.stages.state_dict()
    for name, theirs in source.items():
        assert torch.equal(ends[1.0][name], theirs)
        if theirs.is_floating_point():
            torch.testing.assert_close(ends[0.25][name], 0.75 * ends[0.0][name] + 0.25 * theirs)
    fresh = [name for name, theirs in source.items() if theirs.is_floating_point() and not torch.equal(ends[0.0][name], theirs)]
    assert {"stem.0.weight", "mid.1.running_mean", "top.0.weight"} <= set(fresh)


def test_the_head_starts_that_share_of_a_probes_head() -> None:
    features, y = np.random.default_rng(0).normal(size=(40, 10)), np.arange(40) % 2
    probe = probed(features, y, classes=2)
    for share in (0.0, 0.5, 1.0):
        torch.testing.assert_close(built(share).head.linear.weight, share * probe.weight)


def test_stages_that_do_not_learn_keep_the_sources_bits() -> None:
    net = built(0.5, last=2)
    source = tiny_source().backbone.stages
    assert all(
        torch.equal(net.body.get_submodule(name)[0].weight, source[name][0].weight) == (name != "top")
        for name in dict(net.body.named_children())
        if name != "pool"
    )


def test_the_pull_is_half_the_squared_distance_times_its_strength_and_the_share() -> None:
    method = Progressive(share=0.5, pull=0.1, last=3)
    torch.manual_seed(0)
    net = method.build(tiny_source(), features=np.random.default_rng(0).normal(size=(6, 10)), y=np.arange(6) % 2, classes=2, seed=0)
    before = copy.deepcopy(net.body)
    with torch.no_grad():
        for p in net.body.parameters():
            p.add_(0.1 * torch.randn_like(p))
    x = tiny_source().backbone.below(method.view(tiny_source()).cuts[0])(torch.randn(6, 3, 8, 8))
    terms = method.loss(net, Batch(x, torch.arange(6) % 2), Criterion(torch.ones(2)))
    moved = sum(((a - b).double() ** 2).sum().item() for a, b in zip(net.body.parameters(), before.parameters(), strict=True))
    assert terms["distance from the start"].item() == pytest.approx(0.1 * 0.5 / 2 * moved, rel=1e-5)


def test_what_transfers_nothing_is_a_baseline_and_sees_small_images_where_the_network_takes_any_size() -> None:
    none, some = Progressive(share=0.0), Progressive(share=0.25)
    assert (none.arm, some.arm, Progressive.arm) == ("baseline", "fine-tuned", "fine-tuned")
    assert none.view(tiny_source()).kind == "image"
    assert none.view(planted("helpful")).kind == "input"
    assert some.view(planted("helpful")).cuts == (0,)


@pytest.fixture(scope="module")
def helpful(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, tuple[Step, ...]]:
    bench = ready(tmp_path_factory.mktemp("helpful"), planted("helpful"))
    return bench, walked(bench, planted("helpful"))


def test_where_the_source_helps_the_walk_leaves_the_origin(helpful: tuple[Bench, tuple[Step, ...]]) -> None:
    bench, steps = helpful
    assert (steps[0].share, steps[0].cut, steps[0].gain, steps[0].taken) == (0.0, 0, None, True)
    taken = [s for s in steps if s.taken]
    assert taken[-1].share > 0
    assert all(s.interval[0] > 0 for s in taken[1:])  # type: ignore[index]
    best = bench.search.best("fine-tuned")
    assert best is not None
    assert best.number == taken[-1].trial


def test_steps_that_are_refused_say_why_and_are_not_chosen(helpful: tuple[Bench, tuple[Step, ...]]) -> None:
    bench, steps = helpful
    refused = [s for s in steps if not s.taken]
    assert refused
    assert all(bench.search.trials[s.trial].status == "stopped" for s in refused)
    assert all(bench.search.trials[s.trial].reason.startswith("step not taken, ") and s.why for s in refused)
    assert all(s.interval is None or s.interval[0] <= 0 for s in refused)


@pytest.fixture(scope="module")
def harmful(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, tuple[Step, ...]]:
    bench = ready(tmp_path_factory.mktemp("harmful"), planted("harmful"))
    return bench, walked(bench, planted("harmful"))


def test_where_the_source_harms_the_walk_stays_at_no_transfer(harmful: tuple[Bench, tuple[Step, ...]]) -> None:
    bench, steps = harmful
    assert [s.share for s in steps if s.taken] == [0.0]
    assert bench.search.best("fine-tuned") is None
    origin = bench.search.best("baseline")
    assert origin is not None
    assert origin.params["share"] == 0.0
    assert [s.share for s in steps] == [0.0, 0.25, 0.5, 0.75, 1.0]  # and from there no stage is moved


def test_a_walk_that_is_repeated_reads_its_folds_and_ends_with_the_same_steps(helpful: tuple[Bench, tuple[Step, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    bench, steps = helpful
    spent = bench.arena.ledger.seconds()
    again = ready(bench.arena.ledger.folder.parent, planted("helpful"))
    made: list[str] = []
    plain = Ledger.outcome
    monkeypatch.setattr(Ledger, "outcome", lambda self, key, make, **how: plain(self, key, lambda: (made.append("made"), make())[1], **how))
    assert walked(again, planted("helpful")) == steps
    assert not made
    assert again.arena.ledger.seconds() == spent


def test_a_walk_without_time_says_where_it_ended(tmp_path: Path) -> None:
    bench = ready(tmp_path, planted("helpful"))
    assert walk(bench, Progressive(), planted("helpful"), deadline=0.0) == ()
    assert bench.notes == ["The budget ended before the network from random weights was measured, from which the walk of 'progressive' begins."]


def test_a_run_that_names_it_walks(tmp_path: Path) -> None:
    bench = ready(tmp_path, planted("helpful"), n=40)
    bench.search.folds = bench.search.folds[:2]
    plan.rank(bench)
    plan.fine_tuned(bench, tuners(["progressive"]))
    assert [s.share for s in bench.steps][:2] == [0.0, 0.25]
    assert {t.method for t in bench.search.trials} == {"frozen + head", "progressive"}
    assert dataclasses.asdict(bench.steps[0])["stage"] == "input"

"""Methods from the command line and from Python: listed, named, refused, tried."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import BayesianRidge
from typer.testing import CliRunner

import headstart as hs
from headstart import plan
from headstart.bench import Bench, Silent, set_up
from headstart.cli import app
from headstart.methods import DEEP, Head2ToeRegressor, tuners
from headstart.methods.features.own import own_heads
from headstart.modality import door
from headstart.pretrain import source_from_table
from headstart.runs import Run
from headstart.search import Clock


def rows(n: int, *, seed: int) -> list[dict[str, float]]:
    generator = np.random.default_rng(seed)
    a, b = generator.normal(size=(2, n))
    return [{"a": p, "b": q, "y": r} for p, q, r in zip(a, b, np.sin(2 * a) + b + 0.1 * generator.normal(size=n), strict=True)]


def written(path: Path, table: list[dict[str, float]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return path


def test_methods_are_listed_with_their_spaces_and_papers() -> None:
    done = CliRunner().invoke(app, ["methods", "--json"], catch_exceptions=False)
    listed = {row["class"]: row for row in json.loads(done.output)}
    assert len(listed) == sum(len(kinds) for kinds in hs.METHODS.values()) + len(DEEP)
    assert all((listed[kind.__name__]["level"], "unlabelled target" in listed[kind.__name__]["needs"]) == ("relation", True) for kind in DEEP.values())
    one = listed["L2SP"]
    assert (one["name"], one["level"], one["arm"], one["needs"]) == ("l2-sp", "model", "fine-tuned", [])
    assert one["hyperparameters"]["alpha"] == {"default": 0.01, "choices": [0.001, 0.01, 0.1]}
    assert one["hyperparameters"]["rate"] == {"default": 1e-3, "low": 2e-4, "high": 3e-3, "log": True}
    assert one["paper"].startswith("Li et al. 2018")
    assert listed["CoTuning"]["needs"] == ["classes", "source.classifier"]
    words = CliRunner().invoke(app, ["methods"], catch_exceptions=False).output
    assert all(name in words for name in hs.METHODS)
    assert "lp-ft is fine-tune" in words


def test_a_misspelt_method_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(hs.InputError) as told:
        CliRunner().invoke(app, ["transfer", "nowhere", "--out", str(tmp_path / "out"), "--methods", "lpft,bss"], catch_exceptions=False)
    assert str(told.value) == "There is no method 'lpft'. Did you mean lp-ft? List them with: headstart methods"


def test_a_method_that_needs_a_second_domain_is_told_to_go_to_adapt() -> None:
    for name in DEEP:
        with pytest.raises(hs.InputError) as told:
            tuners([name])
        assert str(told.value) == f"Method {name!r} moves a model to a second domain, and transfer has one. Give both: headstart adapt SOURCE TARGET"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[hs.Task, hs.Source]:
    """A small table, and a network of a neighbouring one."""
    folder = tmp_path_factory.mktemp("tables")
    task, other = (hs.task_from_table(written(folder / f"{n}.csv", rows(n, seed=n)), target="y") for n in (60, 200))
    return task, source_from_table(other, task, seed=0)


def ranked(tables: tuple[hs.Task, hs.Source], folder: Path, *, budget: float = 100.0) -> Bench:
    """A bench whose sources are ranked; the clock starts tomorrow, so that no deadline passes on a slow machine."""
    task, inspection = door("tabular").inspect(tables[0])
    clock = Clock(budget, began=time.monotonic() + 86_400)
    bench = set_up(task, inspection, [tables[1]], folder=folder, clock=clock, observer=Silent(), seed=0, engine="torch")
    plan.rank(bench)
    return bench


@pytest.fixture(scope="module")
def bench(tables: tuple[hs.Task, hs.Source], tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return ranked(tables, tmp_path_factory.mktemp("methods"))


def test_the_named_methods_are_tried_on_the_best_source_and_no_others(bench: Bench) -> None:
    plan.fine_tuned(bench, tuners(["l2-sp", "bitfit", "co-tuning"]))
    tried = [(t.method, t.params["depth"]) for t in bench.search.trials if t.arm == "fine-tuned"]
    assert tried == [("l2-sp", 0), ("bitfit", 0), ("l2-sp", 1), ("bitfit", 1)]
    assert bench.notes[-1].startswith("Method 'co-tuning' needs a target of classes; the target is numbers.")


def test_a_budget_that_pays_for_it_is_spent_on_more_steps_before_any_proposal(tables: tuple[hs.Task, hs.Source], tmp_path: Path) -> None:
    long = ranked(tables, tmp_path, budget=600.0)
    long.count = lambda **how: 2  # type: ignore[method-assign]  # no proposals
    plan.fine_tuned(long, tuners(["l2-sp", "bitfit"]))
    tried = [(t.method, t.params["steps"], t.params["depth"]) for t in long.search.trials if t.arm == "fine-tuned"]
    assert tried == [("l2-sp", 50, 0), ("bitfit", 50, 0), ("l2-sp", 200, 0), ("bitfit", 200, 0), ("l2-sp", 50, 1), ("bitfit", 50, 1)]


def test_a_frozen_method_that_is_named_is_tried_on_the_leading_source_proposed_from_and_not_repeated(tables: tuple[hs.Task, hs.Source], tmp_path: Path) -> None:
    first = ranked(tables, tmp_path)
    plan.frozen(first, plan.rank(first), tuners(["head2toe"]))
    plan.fine_tuned(first, tuners(["head2toe"]))
    tried = [t for t in first.search.trials if t.method == "head2toe"]
    assert (tried[0].source, tried[0].params) == (next(iter(first.sources)), {"keep": 0.2})
    assert sorted(t.params["keep"] for t in tried) == [0.01, 0.05, 0.2, 1.0]  # the whole space, which the budget pays for
    assert {c.method.__class__ for c in first.search.candidates if c.method.name == "head2toe"} == {Head2ToeRegressor}
    assert {t.arm for t in first.search.trials} == {"frozen"}  # nothing that tunes was named

    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "folds").iterdir()}
    again = ranked(tables, tmp_path)
    plan.frozen(again, plan.rank(again), tuners(["head2toe"]))
    assert again.search.trials == first.search.trials
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "folds").iterdir()} == kept


def test_named_heads_and_a_users_own_are_tried_where_the_probe_does_best(tables: tuple[hs.Task, hs.Source], tmp_path: Path) -> None:
    first = ranked(tables, tmp_path)
    plan.frozen(first, plan.rank(first), tuners(["stages", "svm"]), own_heads([BayesianRidge()], classes=0))
    asked = {"stages", "svm", "BayesianRidge()"}
    firsts = {t.method: (n, t) for n, t in reversed(list(enumerate(first.search.trials))) if t.method in asked}
    assert set(firsts) == asked
    before = [t for t in first.search.trials[: min(n for n, _ in firsts.values())] if t.arm == "frozen"]
    probe = max(before, key=lambda t: (t.score, -t.number))
    for name in ("svm", "BayesianRidge()"):
        assert {k: firsts[name][1].params[k] for k in ("back", "span")} == {k: probe.params[k] for k in ("back", "span")}
    assert {t.params["transform"] for t in first.search.trials if t.method == "BayesianRidge()"} > {"none"}  # transforms are proposed


def test_a_run_remembers_which_methods_it_was_asked_for(bench: Bench, tmp_path: Path) -> None:
    what = {"budget": 60.0, "seed": 0, "margin": 0.0, "engine": "torch"}
    Run(tmp_path).claim(bench.task, bench.inspection, ["s"], **what, methods=["l2-sp"])  # type: ignore[arg-type]
    Run(tmp_path).claim(bench.task, bench.inspection, ["s"], **what, methods=["l2-sp"])  # type: ignore[arg-type]
    with pytest.raises(hs.InputError, match=r"holds another run \(its methods: \['l2-sp'\] there, None here\)"):
        Run(tmp_path).claim(bench.task, bench.inspection, ["s"], **what)  # type: ignore[arg-type]


def test_an_unknown_balance_is_told_before_anything_is_read(tmp_path: Path) -> None:
    words = ["multitask", "nowhere.csv", "--text", "t", "--target", "a", "--target", "b", "--out", str(tmp_path / "out"), "--balance", "even"]
    with pytest.raises(hs.InputError) as told:
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert str(told.value) == "balance='even' is unknown. Choose one of uniform, uncertainty, surgery."

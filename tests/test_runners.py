"""Runners: a real Ray cluster of two nodes, one of which is killed; what is sent; what is said where there is no cluster."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.naive_bayes import GaussianNB

import headstart as hs
from headstart.activations.store import Rows, Store
from headstart.cli import _command
from headstart.core import Backbone, Domain, Source, Task
from headstart.evaluate import folds
from headstart.learner import Candidate, views_of
from headstart.ledger import Ledger
from headstart.methods import METHODS, FineTune
from headstart.methods.method import View, knob
from headstart.modality import tabular
from headstart.runners import cluster as room
from headstart.runners import opened
from headstart.runners.cluster import OnRay
from headstart.runners.worker import compute, packed, unpacked
from headstart.search import Arena, Here, Search
from headstart.train import OutOfTime
from headstart.views import Views
from test_search import Column, Planted, Y, search

NEVER = float("inf")


@dataclass(frozen=True)
class World(Planted):
    """Planted views, of no source."""

    sources: dict[str, Source] = field(default_factory=dict)


class Marking(GaussianNB):
    """Leaves a line in a file for each fit; on the ``victim`` node the first fit behind the first finished fold never ends."""

    def __init__(self, folder: str = "", victim: str = "", var_smoothing: float = 1e-9) -> None:
        super().__init__(var_smoothing=var_smoothing)
        self.folder, self.victim = folder, victim

    def fit(self, x: np.ndarray, y: np.ndarray) -> Marking:
        import ray

        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
        with (Path(self.folder) / "fits.txt").open("a") as file:
            file.write(f"{np.round(x.sum(), 9)} {self.var_smoothing} {node}\n")
        time.sleep(0.2)
        if self.victim and node == self.victim and list(Path(self.folder).glob("run/folds/*.npz")):
            (Path(self.folder) / "hung").touch()
            time.sleep(300)
        return super().fit(x, y)


@dataclass(frozen=True)
class Marked(Column):
    """A column whose fits are counted."""

    folder: str = ""
    victim: str = ""

    def estimator(self, *, seed: int) -> GaussianNB:
        return Marking(self.folder, self.victim, self.smoothing)


@dataclass(frozen=True)
class Refusing(Column):
    """What a user's mistake looks like on a worker."""

    def estimator(self, *, seed: int) -> GaussianNB:
        raise hs.InputError("This column cannot be learnt from. Choose another.")


@dataclass(frozen=True)
class Unsendable(Column):
    """Holds what cannot be pickled."""

    column: int = knob(1, choices=(1,))
    lock: Any = field(default_factory=threading.Lock)


@pytest.mark.parametrize(
    ("runner", "address", "words"),
    [
        ("rey", "auto", "There is no runner 'rey'. Did you mean ray?"),
        ("here", "10.0.0.1:6379", "--address is that of a cluster. Name one with --runner ray."),
        ("ray", "ray://10.0.0.1:10001", "ray://10.0.0.1:10001 is an address for Ray's client."),
        ("ray", "127.0.0.1:1", "No Ray cluster answers at 127.0.0.1:1 ("),
        ("ray", "nonsense", "No Ray cluster answers at nonsense ("),
    ],
)
def test_a_runner_that_cannot_be_had_is_told_in_one_line(runner: str, address: str, words: str) -> None:
    with pytest.raises(hs.InputError) as told, opened(runner, address=address):
        pass
    assert str(told.value).startswith(words)
    assert "\n" not in str(told.value)


def test_without_ray_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(hs.InputError, match=r"Ray is not installed: pip install 'headstart\[ray\]'."), opened("ray"):
        pass


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head of one processor, and room for another node; workers are no nicer than the tests, or they would wait for them on few cores.

    Connected once: workers are Ray's for one connection, and each begins by importing PyTorch.
    """
    from ray import cluster_utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", ":".join([str(Path(__file__).parent), str(Path(hs.__file__).parents[1])]))
        # why: a node that does not answer is given up after two seconds instead of fifteen
        soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
        head = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False, "_system_config": soon}
        made = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        try:
            connection, mine = room.connected(made.address)
            assert mine
            yield made
            connection.shutdown()
        finally:
            made.shutdown()


def marked(folder: Path, *, victim: str = "", runner: Any = None) -> Search:
    """Two columns as they are and four that are proposed, in three folds."""
    planned = search(folder / "run")
    one = dataclasses.replace(planned, arena=dataclasses.replace(planned.arena, views=World(), runner=runner or Here()))  # type: ignore[arg-type]
    template = Marked(folder=str(folder), victim=victim)
    one.fixed([Candidate(dataclasses.replace(template, column=i)) for i in (0, 1)], deadline=NEVER)
    one.propose(template, [None], count=4, deadline=NEVER, rival=one.trials[1])
    return one


def fits(folder: Path) -> list[tuple[str, str]]:
    """What was fitted, and on which node."""
    return [(line.rpartition(" ")[0], line.rpartition(" ")[2]) for line in (folder / "fits.txt").read_text().splitlines()]


def test_a_node_killed_in_mid_run_loses_no_finished_fold_and_the_run_ends_as_without_ray(cluster: Any, tmp_path: Path) -> None:
    alone, apart = tmp_path / "alone", tmp_path / "apart"
    alone.mkdir()
    apart.mkdir()
    right = marked(alone)
    node = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    finished: list[str] = []
    ended = threading.Event()

    def kill() -> None:
        while not (apart / "hung").exists():
            time.sleep(0.01)
            if ended.is_set():
                return
        finished.extend(path.name for path in (apart / "run" / "folds").glob("*.npz"))
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with OnRay(cluster.address, cpus=1) as runner:
            assert runner.width == 2
            one = marked(apart, victim=node.node_id, runner=runner)
    finally:
        ended.set()
        killer.join()
    assert one.trials == right.trials
    assert finished
    assert {path.name for path in (apart / "run" / "folds").glob("*.npz")} >= {path.name for path in (alone / "run" / "folds").glob("*.npz")}
    told = fits(apart)
    counted = Counter(what for what, _ in told)
    again = [what for what, times in counted.items() if times > 1]
    # only what was under way on the node that died was begun again, elsewhere
    assert {what for what, _ in fits(alone)} <= set(counted)
    assert (len(again), counted[again[0]]) == (1, 2)
    assert [n == node.node_id for what, n in told if what == again[0]] == [True, False]


@pytest.fixture(scope="module")
def tables() -> tuple[Task, Source]:
    """A table, and a source that is a network of random weights: what it knows is not what this file is about."""
    rng = np.random.default_rng(1)
    a, b = rng.uniform(-1, 1, 90), rng.uniform(-1, 1, 90)
    rows = [{"a": float(u), "b": float(v)} for u, v in zip(a, b, strict=True)]
    features = tabular.features_of(rows)
    about: dict[str, Any] = {"modality": "tabular", "tune_cuts": (0, 1), "recipe": {"library": "table", "features": features}}
    blank = tabular.network(features, seed=0)
    source = Source(
        "table other", dim=blank.dim, stages=tuple(blank.stages), opener=partial(tabular.network, features, seed=0), digest=partial(str, "0"), **about
    )
    return Task("classification", "tabular", Domain("mine", rows, [str(v) for v in np.sin(3 * a) * b > 0]), ("False", "True")), source


@pytest.fixture
def short(short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for every file, and no pictures."""
    monkeypatch.setattr("headstart.evidence.curve", lambda *args, **how: ())
    monkeypatch.setattr("headstart.evidence.feature_map", lambda *args, **how: None)


def test_a_whole_run_has_the_same_bytes_on_a_cluster(cluster: Any, tables: tuple[Task, Source], short: None, tmp_path: Path) -> None:
    task, other = tables
    here = Counted()
    how: dict[str, Any] = {"budget": "10m", "seed": 0, "search": hs.Terms(search="random", trials=4, folds="3"), "methods": ["head2toe"]}
    alone = hs.transfer(task, [other], **how, out=tmp_path / "alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headstart.search.learn", here.learn)
        patch.setattr(OnRay, "width", 7)  # as if there were more machines: trials and judging folds are sent several at once
        apart = hs.transfer(task, [other], **how, out=tmp_path / "apart", runner="ray", address=cluster.address)
    assert apart.to_json() == alone.to_json()
    names = [sorted(path.name for path in (tmp_path / run / "folds").iterdir()) for run in ("alone", "apart")]
    assert names[0] == names[1]
    for name in names[0]:
        first, second = (np.load(tmp_path / run / "folds" / name)["proba"] for run in ("alone", "apart"))
        assert first.tobytes() == second.tobytes()
    # what is shipped is fitted here; folds are not
    assert here.rows == {alone.found.n_train}
    again = hs.transfer(task, [other], **how, out=tmp_path / "apart")
    assert again.to_json() == alone.to_json()


class Counted:
    """On how many rows this process fitted."""

    def __init__(self) -> None:
        self.rows: set[int] = set()

    def learn(self, candidate: Candidate, views: Any, rows: np.ndarray, *args: Any, **how: Any) -> Any:
        from headstart.learner import learn

        self.rows.add(len(rows))
        return learn(candidate, views, rows, *args, **how)


def ground(folder: Path, tables: tuple[Task, Source], runner: Any = None) -> tuple[Arena, Any]:
    task, other = tables
    items, y = list(task.target.x), np.asarray(task.codes)
    views = Views(items, [str(i) for i in range(len(items))], {other.name: other}, Store(folder / "store"), "tabular")
    return Arena(views, y, 2, Ledger(folder / "folds"), 0, runner=runner or Here()), folds([str(c) for c in y], k=3, repeats=1, seed=0)[0]


def test_rows_on_disk_are_read_by_path_and_go_through_the_object_store_where_a_worker_does_not_see_their_files(
    cluster: Any, tables: tuple[Task, Source], tmp_path: Path
) -> None:
    tuned = Candidate(FineTune(steps=5), tables[1])
    alone, fold = ground(tmp_path / "alone", tables)
    right, _ = alone.fold(tuned, *fold, deadline=NEVER)
    for hidden in (False, True):
        with OnRay(cluster.address, cpus=1) as runner:
            folder = tmp_path / f"hidden {hidden}"
            arena, _ = ground(folder, tables, runner)
            for view in views_of(tuned):
                arena.views.array(view)
            assert isinstance(arena.views.array(tuned.view), Rows)
            files = list((folder / "store").rglob("*.rows"))
            assert files
            for path in files if hidden else ():  # this process still has them open, as it would where another removed them to make room
                path.unlink()
            assert arena.fold(tuned, *fold, deadline=NEVER)[0].tobytes() == right.tobytes()
            assert runner._by_value == hidden


def test_what_a_user_did_wrong_is_said_as_without_a_cluster_and_what_cannot_be_sent_is_computed_here(cluster: Any, tmp_path: Path) -> None:
    said: list[str] = []
    split = folds(Y, k=3, repeats=1, seed=0)[0]
    with OnRay(cluster.address, cpus=1, say=said.append) as runner:
        arena = Arena(World(), Y, 2, Ledger(tmp_path / "folds"), 0, runner=runner)  # type: ignore[arg-type]
        with pytest.raises(hs.InputError, match="This column cannot be learnt from"):
            arena.fold(Candidate(Refusing(1)), *split, deadline=NEVER)
        found, _ = arena.fold(Candidate(Unsendable()), *split, deadline=NEVER)
        with pytest.raises(OutOfTime):
            arena.fold(Candidate(Column(2)), *split, deadline=time.monotonic() - 1)
    assert found.tolist() == Arena(World(), Y, 2, Ledger(tmp_path / "x"), 0).fold(Candidate(Column(1)), *split, deadline=NEVER)[0].tolist()  # type: ignore[arg-type]
    assert [text.partition(":")[0] for text in said] == ["Computed here, for it cannot be sent"]


def test_where_no_machine_is_left_this_process_goes_on(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "POLL", 0.05)
    monkeypatch.setattr(room, "GRACE", 0.1)
    said: list[str] = []
    with OnRay(cluster.address, cpus=64, say=said.append) as runner:
        arena = Arena(World(), Y, 2, Ledger(tmp_path), 0, runner=runner)  # type: ignore[arg-type]
        score, _ = arena.score(Candidate(Column(5)), *folds(Y, k=3, repeats=1, seed=0)[0], deadline=NEVER)
    assert score == 1.0
    assert said == ["Computed here, for the cluster could not: no machine with 64 processors is left"]


def test_a_source_travels_without_its_weights_and_is_opened_once() -> None:
    opened_times: list[int] = []

    def opener() -> Backbone:
        opened_times.append(1)
        return Backbone({"one": torch.nn.Linear(2, 2)}, dim=2)

    source = Source("s", stages=("one",), opener=opener, digest=lambda: "abc")
    assert source.backbone is source.backbone
    sent = packed(source)
    assert "backbone" not in sent
    assert not any(isinstance(value, torch.nn.Module) for value in sent.values())
    there = unpacked(("s abc", "abc", sent))
    assert unpacked(("s abc", "abc", sent)) is there
    assert (there, there.weights_sha256, there.backbone.dim) == (source, "abc", 2)
    assert len(opened_times) == 2
    other = unpacked(("other", "abc", packed(dataclasses.replace(source, digest=Changing()))))
    with pytest.raises(hs.InputError, match="not the same on every machine"):
        _ = other.backbone


class Changing:
    """A digest that is another one on the second machine."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        return "abc" if self.asked == 1 else "abd"


def test_every_method_asks_for_no_other_views_than_are_sent(tables: tuple[Task, Source], tmp_path: Path) -> None:
    other = tables[1]
    arena, (train, test) = ground(tmp_path, tables)
    able = [kinds[0]() for kinds in METHODS.values() if not kinds[0].needs and kinds[0].level in {"feature", "model"} and kinds[0].arm != "baseline"]
    assert len(able) > 10
    for method in able:
        candidate = Candidate(dataclasses.replace(method, steps=1) if hasattr(method, "steps") else method, other)
        asked: set[View] = set()
        watched = dataclasses.replace(arena, views=Watched(arena.views, asked))  # type: ignore[arg-type]
        watched.made((candidate, train, test), deadline=NEVER)
        assert asked <= set(views_of(candidate)), method.name


@dataclass(frozen=True)
class Watched:
    """Views that remember which were asked for."""

    of: Views
    asked: set[View]

    def array(self, view: View) -> Any:
        self.asked.add(view)
        return self.of.array(view)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)


def test_a_worker_with_other_versions_says_so() -> None:
    from headstart.runners.worker import Ground, Order

    old = Ground(Y, 2, 0, None, hs.Settings(), {"torch": 1}, {"torch": "2.0"})
    with pytest.raises(hs.InputError, match=rf"A worker of the cluster has torch {torch.__version__.split('+')[0]}.*, and this process 2.0"):
        compute(old, Order(Candidate(Column()), Y, Y, NEVER, ()), None)


def test_where_folds_were_computed_is_no_part_of_how_a_run_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["headstart", "transfer", "x", "--runner", "ray", "--address=10.0.0.1:6379", "--out", "o", "--seed", "3"])
    assert _command(Path("o")) == "headstart transfer x --seed 3"

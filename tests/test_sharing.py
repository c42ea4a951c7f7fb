"""Several processes at one run: who makes what, what a death leaves behind, and the journal that they write together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import optuna
import pytest

from headstart.ledger import Busy, Ledger

ROOT = Path(__file__).parent
# a small search whose every fit takes a moment and leaves a line in a file
SCRIPT = """
import dataclasses, os, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import headstart.search as rooms
from test_search import Column, columns, plan, search
from headstart.learner import learn
folder = Path({folder!r})
def slow(candidate, views, rows, *args, **how):
    with open(folder.parent / "fits.txt", "a") as file:
        file.write(str(os.getpid()) + " " + str(candidate.params) + " " + str(rows.tolist()) + chr(10))
    time.sleep({pause})
    return learn(candidate, views, rows, *args, **how)
rooms.learn = slow
(folder.parent / ("ready-" + sys.argv[1])).touch()
while len(list(folder.parent.glob("ready-*"))) < {together}:
    time.sleep(0.01)
one = plan(search(folder))
(folder.parent / ("trials-" + sys.argv[1])).write_text(repr(one.trials))
"""


def start(folder: Path, name: str, *, pause: float = 0.05, together: int = 1) -> subprocess.Popen[bytes]:
    """A process that searches once so many are ready: they take turns on few cores, and one might else be done before another has begun."""
    code = SCRIPT.format(tests=str(ROOT), folder=str(folder), pause=pause, together=together)
    return subprocess.Popen([sys.executable, "-c", code, name])


def fits(folder: Path) -> list[str]:
    return (folder.parent / "fits.txt").read_text().splitlines()


def what(lines: list[str]) -> list[str]:
    return sorted(line.partition(" ")[2] for line in lines)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert start(folder, "a").wait() == 0
    return folder


def test_two_processes_share_the_folds_repeat_none_and_end_alike(alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    both = [start(folder, name, pause=0.3, together=2) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    done = fits(folder)
    assert len(set(what(done))) == len(done)
    assert {line.split()[0] for line in done} == {str(process.pid) for process in both}
    # a fold may have been made ahead of one after which the trial was given up; nothing that one process needs is missing
    assert set(what(fits(alone))) <= set(what(done))
    assert {(folder.parent / f"trials-{name}").read_text() for name in "ab"} == {(alone.parent / "trials-a").read_text()}
    assert journalled(folder) == journalled(alone)


def test_what_a_killed_process_was_at_is_taken_over_by_the_other(alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    victim = start(folder, "victim", pause=60.0)
    while not (folder.parent / "fits.txt").exists():
        time.sleep(0.02)
    other = start(folder, "other")
    time.sleep(0.5)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert other.wait(timeout=60) == 0
    assert (folder.parent / "trials-other").read_text() == (alone.parent / "trials-a").read_text()


def journalled(folder: Path) -> list[tuple[object, ...]]:
    trials = optuna.load_study(study_name="column", storage=f"sqlite:///{folder / 'journal.sqlite'}").trials
    return [(t.params, t.value, t.state, t.intermediate_values, {k: v for k, v in t.user_attrs.items() if k != "seconds"}) for t in trials]


def test_the_journal_holds_what_a_dashboard_shows(alone: Path) -> None:
    study = optuna.load_study(study_name="column", storage=f"sqlite:///{alone / 'journal.sqlite'}")
    assert study.metric_names == ["balanced accuracy"]
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    for trial in study.trials:
        about, folds = trial.user_attrs, trial.user_attrs["folds"]
        assert about["method"] == "column"
        assert about["settings"] == trial.params
        assert trial.value == pytest.approx(np.mean(folds))
        assert trial.intermediate_values == {k: pytest.approx(np.mean(folds[:k])) for k in range(1, len(folds) + 1)}
        assert (trial.state is optuna.trial.TrialState.PRUNED) == (about["status"] == "stopped") == bool(about["reason"])
    assert {t.state for t in study.trials} == {optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED}


def test_optuna_dashboard_serves_the_journal(alone: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    served = dashboard.wsgi(f"sqlite:///{alone / 'journal.sqlite'}")
    status: list[str] = []
    environment = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies", "SERVER_NAME": "here", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
    body = b"".join(served({**environment, "wsgi.errors": sys.stderr, "wsgi.input": None}, lambda code, headers, *rest: status.append(code)))
    assert status == ["200 OK"]
    assert [study["study_name"] for study in json.loads(body)["study_summaries"]] == ["column"]


def test_a_fold_in_other_hands_is_waited_for_or_left(tmp_path: Path) -> None:
    ledger, entered, leave = Ledger(tmp_path / "folds"), threading.Event(), threading.Event()

    def make() -> np.ndarray:
        entered.set()
        leave.wait()
        return np.ones((1, 2))

    thread = threading.Thread(target=lambda: ledger.outcome({"a": 1}, make))
    thread.start()
    entered.wait()
    with pytest.raises(Busy):
        Ledger(tmp_path / "folds").outcome({"a": 1}, lambda: pytest.fail("made twice"), patience=0.0)
    assert Ledger(tmp_path / "folds").outcome({"a": 2}, lambda: np.zeros((1, 2)), patience=0.0)[0].tolist() == [[0.0, 0.0]]
    leave.set()
    assert Ledger(tmp_path / "folds").outcome({"a": 1}, lambda: pytest.fail("made twice"))[0].tolist() == [[1.0, 1.0]]
    thread.join()
    assert os.listdir(ledger.locks)

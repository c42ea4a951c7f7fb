"""Several processes train what one does: the same weights up to rounding, the same bits twice, and an error of one is an error of all."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headstart
from headstart.cli import main
from headstart.contract_method import CLASSES, World
from headstart.core import InputError
from headstart.crew import ready, together
from headstart.crew.wire import dumped
from headstart.gradients import Work
from headstart.keeping import Settings
from headstart.methods.method import Criterion, Method
from headstart.methods.needs import unmet
from headstart.runners import opened
from test_methods_contract import DEEPS, SOURCES, TUNERS

TESTS = Path(__file__).parent


def launched(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run that under two processes of one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, words)]
    package = str(Path(headstart.__file__).parents[1])
    around = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONPATH": package, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, env=around, check=False, timeout=240)


@pytest.fixture(scope="module")
def worlds() -> subprocess.CompletedProcess[str]:
    return launched(TESTS / "crew_worlds.py")


@pytest.fixture(scope="module")
def found(worlds: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert worlds.stdout, worlds.stderr
    answer: dict[str, Any] = json.loads(worlds.stdout)
    return answer


@pytest.mark.parametrize("name", ["cnn", "uneven", "few", "memory", "l2-sp", "deep-coral", "self-training"])
def test_two_processes_end_with_the_weights_of_one(found: dict[str, Any], name: str) -> None:
    assert found[name]["moved"] > 1e-3
    assert found[name]["apart"] < 1e-5


@pytest.mark.parametrize("name", ["cnn", "uneven", "statistics", "dropout", "l2-sp", "deep-coral", "self-training"])
def test_as_many_processes_end_with_the_same_bits_again(found: dict[str, Any], name: str) -> None:
    assert found[name]["again"] == 0.0


def test_what_a_first_norm_sees_is_the_whole_batch(found: dict[str, Any]) -> None:
    assert found["first norm"]["moved"] > 1e-3
    assert found["first norm"]["apart"] < 1e-5  # the mean of the parts' means; of later layers the parts' statistics differ


def test_each_process_drops_units_of_its_own_and_a_stopped_training_goes_on_with_the_same_draws(found: dict[str, Any]) -> None:
    assert found["dropout"]["apart"] > 1e-3
    assert found["resumed"] == 0.0


def test_an_error_of_another_process_is_raised_by_the_first_and_the_next_training_runs(found: dict[str, Any]) -> None:
    assert found["nan"] == "InputError: The loss of 'plain' became nan at step 1. Lower its rate (now 0.01). "
    assert found["bug"].startswith("RuntimeError: process 2 of 2 failed: KeyError: 'planted'")
    assert "in loss" in found["bug"]
    assert found["after"] == ""


def test_a_mistake_at_the_end_is_told_once_and_ends_all(worlds: subprocess.CompletedProcess[str]) -> None:
    assert worlds.returncode == 1  # torchrun's own; the first process's is 2
    assert "exitcode  : 2 " in worlds.stderr
    told = [line for line in worlds.stderr.splitlines() if line.startswith("headstart: ")]
    assert len(told) == 1
    assert told[0].startswith("headstart: There is no method 'lp-fd'.")


def test_more_processes_than_there_are_is_one_clear_line(found: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^processes=2 is asked for, and this is one. Start them with: torchrun --nproc-per-node 2 -m headstart transfer"):
        ready(Settings(processes=2))
    assert found["too many"].startswith("processes=3 is asked for, and there are 2. Start them with: torchrun --nproc-per-node 3")


def test_without_torchrun_there_is_one_process() -> None:
    with together() as processes:
        assert processes == 1


@pytest.mark.parametrize("settings", [Settings(processes=2), Settings(device="cuda")])
def test_a_cluster_trains_by_one_process_on_the_cpu(settings: Settings) -> None:
    with pytest.raises(InputError, match="Folds on a Ray cluster are trained by one process each, on the CPU"), opened("ray", settings=settings):
        pass


def test_a_gpu_that_is_not_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="device=cuda is asked for, and PyTorch sees no GPU here"):
        Settings(device="cuda").place()
    with pytest.raises(InputError, match=r"device='tpu' is unknown\. Choose one of cpu, cuda"):
        Settings.parse("device=tpu")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("method", [*TUNERS, *DEEPS], ids=lambda m: m.name)
def test_every_method_and_its_net_can_be_sent(method: type[Method], source: str) -> None:
    given, tiny = method(), SOURCES[source]()
    if unmet(given, tiny, classes=CLASSES):
        return
    net = World.of(given, tiny, classes=CLASSES).built(given)
    sent, again, _, _ = pickle.loads(dumped(Work(given, net, Criterion(torch.ones(CLASSES)), 0, torch.device("cpu"))))
    assert sent == given
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))
    assert [p.requires_grad for p in net.parameters()] == [p.requires_grad for p in again.parameters()]  # as many: what is shared stays shared


def test_the_main_job_runs_under_torchrun_and_speaks_once(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name, n in (("target", 40), ("source", 120)):
        rows = [f"{a:.3f},{b:.3f},{'yes' if a + b > 0 else 'no'}" for a, b in generator.normal(size=(n, 2))]
        (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,kind", *rows]))
    data = (tmp_path / "target.csv", "--target", "kind", "--source-data", tmp_path / "source.csv")
    entry = [TESTS / "crew_end.py"] if sys.platform == "linux" else ["-m", "headstart"]
    done = launched(*entry, "transfer", *data, "--out", tmp_path / "run", "--budget", "2m", "--search", "random", "--trials", "1", "--folds", "0.2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Verdict: ") == 1
    assert done.stdout.count("Report: ") == 1
    assert done.stderr == ""
    result = headstart.load(tmp_path / "run")
    assert result.settings == {"processes": 2}
    assert any(trial.method == "scratch" for trial in result.trials)  # which both have trained
    assert result.provenance.command.startswith("torchrun --nproc-per-node 2 -m headstart transfer ")


def test_other_commands_are_refused_by_the_first_process_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["headstart", "sources"])
    for rank, status in (("0", 2), ("1", 0)):
        for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "RANK": rank}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == status
    assert capsys.readouterr().err == "headstart: Several processes can share the training of transfer. Run headstart sources without torchrun.\n"

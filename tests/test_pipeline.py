"""The main job, end to end: real weights, real images on disk, a killed run that goes on, and the model that is handed over."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import headstart as hs
from headstart import forecast
from headstart.activations.store import default_root


def textures(root: Path, *, n: int = 24, seed: int = 0) -> Path:
    """Two classes of stripes that differ in their slant, with noise: hard for pixels, easy for a network's early stages."""
    generator = np.random.default_rng(seed)
    grid_y, grid_x = np.mgrid[0:64, 0:64]
    for name, sign in (("left", 1), ("right", -1)):
        (root / name).mkdir(parents=True)
        for i in range(n):
            wave = np.sin((grid_x + sign * grid_y) * generator.uniform(0.3, 0.6) + generator.uniform(0, 6))
            pixels = 127 + 40 * wave + generator.normal(0, 30, (64, 64))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{i:03d}.png")
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return textures(tmp_path_factory.mktemp("pipeline") / "photos", n=12)


@pytest.fixture(scope="module")
def finished(photos: Path, unhurried: None) -> tuple[hs.Result, Path]:
    folder = photos.parent / "run"
    task = hs.Task.from_folder(photos)
    return hs.transfer(task, [hs.sources.get("efficientnet_lite0")], budget="1m", seed=0, out=folder, command="x"), folder


def test_every_arm_is_measured_and_the_plan_is_finished(finished: tuple[hs.Result, Path]) -> None:
    result, _ = finished
    assert result.stopped_by == "plan"
    assert [a.name for a in result.arms] == ["baseline", "frozen", "fine-tuned"]
    assert all(a.cv.interval is not None and a.test.interval is not None and a.test.n == 6 for a in result.arms)
    assert result.found.n_train == 18
    assert {t.method for t in result.trials} == {"simple", "scratch", "frozen + head", "stages", "discriminative"}
    assert len(result.curve) >= 3


def test_what_is_shipped_follows_from_the_verdict(finished: tuple[hs.Result, Path]) -> None:
    result, _ = finished
    assert (result.shipped == "baseline") == (result.verdict.ship == "baseline")
    baseline = result.arm("baseline")
    rival = max((a for a in result.arms if a.name != "baseline"), key=lambda a: result.trials[a.trial].score)
    shared = min(len(baseline.folds), len(rival.folds))
    assert result.verdict.gain == pytest.approx(np.mean(rival.folds[:shared]) - np.mean(baseline.folds[:shared]))


def test_the_loaded_model_predicts_as_the_one_in_hand_and_as_the_reported_confusion(finished: tuple[hs.Result, Path], photos: Path) -> None:
    result, folder = finished
    paths = sorted(str(p) for p in photos.rglob("*.png"))
    again = hs.load(folder)
    assert again == result
    mine, theirs = result.predict(paths), again.predict(paths)
    assert [p.label for p in mine] == [p.label for p in theirs]
    np.testing.assert_allclose([p.probabilities for p in mine], [p.probabilities for p in theirs], atol=1e-6)
    assert all(sum(p.probabilities) == pytest.approx(1) and p.probability == max(p.probabilities) for p in mine)
    assert result.predict([]) == []


def test_arrays_predict_as_their_files(finished: tuple[hs.Result, Path], photos: Path) -> None:
    result, _ = finished
    path = next(photos.rglob("*.png"))
    array = np.asarray(Image.open(path).convert("RGB"))
    assert result.predict([array])[0].probabilities == pytest.approx(result.predict([str(path)])[0].probabilities)


def test_a_finished_run_is_read_and_not_repeated(finished: tuple[hs.Result, Path], photos: Path) -> None:
    result, folder = finished
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    again = hs.transfer(hs.Task.from_folder(photos), [hs.sources.get("efficientnet_lite0")], budget="1m", seed=0, out=folder, command="x")
    assert again == result
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before


def test_another_seed_in_the_same_folder_is_refused(finished: tuple[hs.Result, Path], photos: Path) -> None:
    _, folder = finished
    with pytest.raises(hs.InputError, match="holds another run"):
        hs.transfer(hs.Task.from_folder(photos), [hs.sources.get("efficientnet_lite0")], budget="1m", seed=1, out=folder)


def test_a_finished_run_is_remembered_for_later_forecasts(finished: tuple[hs.Result, Path]) -> None:
    result, _ = finished
    rows = [row for row in forecast.past(default_root()) if row.source == "efficientnet_lite0" and row.n == result.found.n_train]
    baseline, tuned = result.arm("baseline"), result.arm("fine-tuned")
    first = next(t.score for t in result.trials if t.arm == "frozen")
    assert baseline is not None
    assert (first, baseline.cv.value, None if tuned is None else tuned.test.value) in [(row.frozen, row.baseline, row.fine_tuned) for row in rows]


def test_a_run_killed_twice_ends_with_the_same_bytes_and_repeats_nothing(finished: tuple[hs.Result, Path], photos: Path, tmp_path: Path) -> None:
    _, whole = finished
    folder, cache = tmp_path / "killed", tmp_path / "cache"
    code = (
        f"import math, headstart as hs, torch; from headstart.search import Clock; torch.set_num_threads({torch.get_num_threads()})\n"
        "Clock.deadline, Clock.late = lambda clock, share: math.inf, lambda clock, share, *, need=0.0: False\n"  # as in \"unhurried\"
        f"hs.transfer(hs.Task.from_folder({str(photos)!r}), [hs.sources.get('efficientnet_lite0')], budget='1m', seed=0, out={str(folder)!r}, command='x')\n"
    )
    environment = {**os.environ, "HEADSTART_CACHE": str(cache)}
    for pieces in (3, 30):  # kill once in the middle of the simple models, and once later
        process = subprocess.Popen([sys.executable, "-c", code], env=environment)
        while len(list(folder.glob("folds/*.npz"))) < pieces and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = {p: p.stat().st_mtime_ns for root in (folder / "folds", cache) for p in root.rglob("*") if p.is_file() and not p.name.startswith(".")}
    assert not (folder / "result.json").exists()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert (folder / "result.json").read_bytes() == (whole / "result.json").read_bytes()
    assert all(p.stat().st_mtime_ns == time_ns for p, time_ns in kept.items() if p.suffix == ".npz")


def test_duplicates_are_kept_on_one_side_and_reported(tmp_path: Path) -> None:
    root = textures(tmp_path / "photos", n=12)
    for i in range(4):
        (root / "left" / f"copy{i}.png").write_bytes((root / "left" / "000.png").read_bytes())
    from headstart.evaluate import holdout
    from headstart.evidence import found, joined_groups
    from headstart.modality.image import inspect

    task, inspection = inspect(hs.Task.from_folder(root))
    groups = joined_groups(None, inspection.digests)
    for seed in range(10):
        train, test = holdout(np.asarray(task.codes), groups=groups, share=0.25, seed=seed)
        assert not {inspection.digests[i] for i in train} & {inspection.digests[i] for i in test}
    strata = {"strata": np.asarray(task.codes), "names": task.labels}
    assert found(task, inspection, **strata, groups=groups, train=train, test=test).duplicates == 4


def test_a_task_that_is_not_supported_yet_is_refused_with_a_sentence() -> None:
    task = hs.Task("segmentation", "image", hs.Domain("d", ["a"], ["b"]))
    with pytest.raises(hs.InputError, match="cannot transfer to image segmentation yet; it can to classification and regression"):
        hs.transfer(task, [], budget="1m", seed=0)


def test_no_source_is_refused_with_the_install_line(photos: Path) -> None:
    with pytest.raises(hs.InputError, match=r"pip install 'headstart\[sources\]'"):
        hs.transfer(hs.Task.from_folder(photos), [], budget="1m", seed=0)


def test_the_journal_opens_in_optuna(finished: tuple[hs.Result, Path]) -> None:
    import optuna

    result, folder = finished
    storage = f"sqlite:///{folder / 'journal.sqlite'}"
    names = optuna.get_all_study_names(storage)
    recorded = sum(len(optuna.load_study(study_name=n, storage=storage).trials) for n in names)
    assert recorded == len(result.trials)


def test_the_result_holds_no_seconds(finished: tuple[hs.Result, Path]) -> None:
    _, folder = finished
    assert "times" not in json.loads((folder / "result.json").read_text())
    assert json.loads((folder / "times.json").read_text())["total"] > 0

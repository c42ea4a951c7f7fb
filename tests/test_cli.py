"""The commands as a user types them: answers, tables, files, and one clear line with exit status 2 for what cannot be used."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def headstart(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headstart", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200", **environment}, check=False)


def refused(*words: str | Path, **environment: str) -> str:
    done = headstart(*words, **environment)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli") / "photos"
    generator = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (root / name).mkdir(parents=True)
        for i in range(12):
            pixels = generator.normal(level, 40, (40, 48, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture(scope="module")
def run(photos: Path) -> tuple[Path, str]:
    out = photos.parent / "run"
    done = headstart("transfer", photos, "--out", out, "--budget", "1m", "--seed", "0", "--source", "squeezenet")
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_the_version_is_printed() -> None:
    assert headstart("--version").stdout == "headstart 0.1.0\n"


def test_help_lists_the_commands() -> None:
    text = headstart("--help").stdout
    assert all(command in text for command in ("transfer", "predict", "report", "sources"))


def test_the_main_job_prints_what_it_found_the_sources_the_methods_the_verdict_and_the_report(run: tuple[Path, str]) -> None:
    out, text = run
    assert "Found 24 images in 2 classes (dark 12, light 12); pixels 48x40 to 48x40, median 48x40; modes RGB 24." in text
    for part in ("squeezenet", "frozen + head", "simple", "Verdict: ", "Shipped: ", "Report: "):
        assert part in text
    assert str(out / "report.html") in text
    assert (out / "report.html").read_text().startswith("<!doctype html>")


def test_predictions_are_written_with_calibrated_probabilities(run: tuple[Path, str], photos: Path, tmp_path: Path) -> None:
    out, _ = run
    done = headstart("predict", out, photos / "dark", photos / "light" / "00.png", "--out", tmp_path / "p.csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert len(rows) == 13
    assert [r["label"] for r in rows] == ["dark"] * 12 + ["light"]
    assert all(abs(float(r["p(dark)"]) + float(r["p(light)"]) - 1) < 1e-5 for r in rows)


def test_the_report_can_be_written_again(run: tuple[Path, str]) -> None:
    out, _ = run
    before = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    assert str(out / "report.html") in headstart("report", out).stdout
    assert (out / "report.html").read_bytes() == before


def test_sources_are_listed_as_a_table_and_as_json() -> None:
    assert "efficientnet_lite0" in headstart("sources").stdout
    rows = json.loads(headstart("sources", "--json").stdout)
    assert {"efficientnet_lite0", "squeezenet"} <= {r["name"] for r in rows if r["installed"]}


def test_bad_input_gives_one_clear_line(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    assert "has no class folders with images" in refused("transfer", tmp_path / "empty", "--out", out)
    assert "at least 10 are needed" in refused("transfer", photos, "--out", out, "--budget", "0")
    line = refused("transfer", photos, "--out", out, "--source", "eficientnet_lite0")
    assert "efficientnet_lite0" in line
    assert "headstart sources" in line
    assert "holds no run" in refused("report", tmp_path / "empty")
    assert "holds no run" in refused("predict", tmp_path / "empty", photos, "--out", tmp_path / "p.csv")
    assert not out.exists()


def test_an_out_that_holds_another_run_is_refused_and_nothing_is_lost(run: tuple[Path, str], photos: Path) -> None:
    out, _ = run
    before = (out / "result.json").read_bytes()
    assert "holds another run (its seed: 0 there, 5 here)" in refused(
        "transfer", photos, "--out", out, "--budget", "1m", "--seed", "5", "--source", "squeezenet"
    )
    assert (out / "result.json").read_bytes() == before


def test_an_unreadable_image_is_named_and_left_out_only_on_request(photos: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    bad = root / "dark" / "00.png"
    bad.write_bytes(bad.read_bytes()[:300])
    line = refused("transfer", root, "--out", tmp_path / "run", "--source", "squeezenet")
    assert "00.png" in line
    assert "--skip-unreadable" in line


def test_no_write_permission_is_one_line(photos: Path) -> None:
    line = refused("transfer", photos, "--out", "/proc/headstart-run", "--source", "squeezenet")
    assert "cannot be written" in line


def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(photos: Path, tmp_path: Path) -> None:
    """A real full disk: a file system of 64 KiB in memory, mounted in a name space of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    job = f"{sys.executable} -m headstart transfer {photos} --out {disk}/run --budget 1m --source squeezenet"
    mount = f"mount -t tmpfs -o size=64k tmpfs {disk}"
    room = f"mount -o remount,size=64m {disk}"
    script = f"{mount} || exit 77; {job} >/dev/null; echo status $?; {room}; {job} >/dev/null && test -s {disk}/run/result.json && echo went on"
    done = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"this machine lets nobody mount a file system in a name space: {done.stderr.strip()}")
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1
    assert "the disk is full" in lines[0]
    assert done.stdout.split("\n")[:2] == ["status 2", "went on"]


def test_a_run_becomes_a_script_that_reaches_its_held_out_score_without_headstart(run: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = run
    script = tmp_path / "script.py"
    assert headstart("eject", out, "--out", script).stdout == f"Script: {script}\n"
    barred = "import sys, runpy; sys.modules['headstart'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", barred, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    reached = next(arm["test"]["value"] for arm in result["arms"] if arm["name"] == result["shipped"])
    n = result["found"]["n_test"]
    said = float(done.stdout.split(": ")[1].split()[0])
    assert abs(said - reached) <= 2 * (max(reached * (1 - reached), 1 / n) / n) ** 0.5  # two binomial standard errors


def test_a_folder_that_holds_no_run_is_not_ejected(tmp_path: Path) -> None:
    assert "holds no run of headstart transfer" in refused("eject", tmp_path)

"""The main job on texts and tables, from the command line to predictions: nothing in the spine is image-shaped."""

from __future__ import annotations

import csv
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner

import headstart as hs
from headstart.cli import app


def written(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def sentences(module: ModuleType) -> list[str]:
    """First lines of the docstrings of a module of the standard library: real English that every machine has."""
    found = {(inspect.getdoc(thing) or "").split("\n")[0] for thing in vars(module).values() if callable(thing)}
    return sorted(line for line in found if len(line.split()) > 3)


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def mails(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import os
    import socket
    import statistics

    rows = [[text, name] for name, module in (("files", os), ("nets", socket), ("numbers", statistics)) for text in sentences(module)[:24]]
    return written(tmp_path_factory.mktemp("texts") / "mails.csv", ["body", "about"], rows)


@pytest.fixture(scope="module")
def text_run(mails: Path) -> tuple[Path, str]:
    out = mails.parent / "run"
    return out, run("transfer", str(mails), "--text", "body", "--target", "about", "--out", str(out), "--budget", "40s")


def test_texts_are_transferred_to_and_the_report_shows_them(text_run: tuple[Path, str]) -> None:
    out, words = text_run
    assert "texts in 3 classes" in words
    assert "all-MiniLM-L6-v2" in words
    result = hs.load(out)
    assert (result.kind, result.found.things) == ("classification", "texts")
    assert "all-MiniLM-L6-v2" in {s.name for s in result.sources}  # which one leads is for these few texts to say
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Most confidently wrong" in page
    assert all(not m.thumbnail and m.text for m in result.mistakes)


def test_a_loaded_model_of_texts_predicts_what_the_fitted_one_does(text_run: tuple[Path, str], mails: Path, tmp_path: Path) -> None:
    out, _ = text_run
    words = run("predict", str(out), str(mails), "--out", str(tmp_path / "p.csv"))
    assert "72 predictions" in words
    with (tmp_path / "p.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with mails.open(encoding="utf-8") as file:
        truth = [row["about"] for row in csv.DictReader(file)]
    assert np.mean([r["label"] == t for r, t in zip(rows, truth, strict=True)]) > 0.7  # chance is a third; most of them were trained on
    assert all(abs(sum(float(v) for k, v in r.items() if k.startswith("p(")) - 1) < 1e-4 for r in rows)


def numbers(n: int, *, seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(-1, 1, n), rng.uniform(-1, 1, n)
    y = np.sin(3 * a) * b + 0.05 * rng.standard_normal(n)
    return [[f"{u:.4f}", f"{v:.4f}", "red" if i % 2 else "blue", f"{t:.4f}"] for i, (u, v, t) in enumerate(zip(a, b, y, strict=True))]


@pytest.fixture(scope="module")
def table_run(tmp_path_factory: pytest.TempPathFactory, unhurried: None) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("tables")
    header = ["a", "b", "colour", "y"]
    mine, other = written(folder / "mine.csv", header, numbers(60, seed=1)), written(folder / "other.csv", header, numbers(1500, seed=2))
    out = folder / "run"
    return out, run("transfer", str(mine), "--target", "y", "--source-data", str(other), "--out", str(out), "--budget", "40s")


def test_a_related_table_helps_a_regression(table_run: tuple[Path, str]) -> None:
    out, words = table_run
    result = hs.load(out)
    assert (result.kind, result.metric, result.labels) == ("regression", "R2", ())
    assert result.verdict.decision == "transfer"
    assert "Verdict: transfer" in words
    assert result.scatter is not None
    assert result.confusion is None
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Predicted against true" in page


def test_intervals_of_predicted_numbers_hold_the_truth(table_run: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = table_run
    fresh = written(tmp_path / "fresh.csv", ["a", "b", "colour", "y"], numbers(300, seed=3))
    run("predict", str(out), str(fresh), "--out", str(tmp_path / "p.csv"))
    with (tmp_path / "p.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    truth = [float(row[3]) for row in numbers(300, seed=3)]
    held = np.mean([float(r["low"]) <= t <= float(r["high"]) for r, t in zip(rows, truth, strict=True)])
    assert 0.75 < held <= 1.0  # stated: 0.90, from 45 training rows


def test_a_finished_run_of_a_table_is_the_same_again(table_run: tuple[Path, str]) -> None:
    out, _ = table_run
    plain = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert hs.Result.from_json((out / "result.json").read_text(encoding="utf-8")).to_json() == (out / "result.json").read_text(encoding="utf-8")
    assert plain["provenance"]["weights_sha256"].keys() == {"table other.csv"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (lambda p: [str(p.parent / "nosuch")], "nosuch does not exist. Give a folder with one folder of images per class, or a table"),
        (lambda p: [str(p)], "mails.csv is a file, so --target is needed: the column to predict."),
        (lambda p: [str(p.parent), "--target", "about"], "is a folder; --text and --target are for tables."),
        (lambda p: [str(p), "--target", "about"], "Columns: body, about. To read 'body' as text: --text body."),
        (lambda p: [str(p), "--text", "body", "--target", "about", "--source", "squeezenet"], "Source 'squeezenet' is for image, and the task is text."),
    ],
)
def test_what_does_not_fit_together_is_refused(words: Callable[[Path], list[str]], message: str, mails: Path, tmp_path: Path) -> None:
    with pytest.raises(hs.InputError) as caught:
        CliRunner().invoke(app, ["transfer", *words(mails), "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert message in str(caught.value)

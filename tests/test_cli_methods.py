"""Methods from the command line and from Python: listed, named, refused, tried."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import headstart as hs
from headstart.cli import app


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
    assert len(listed) == sum(len(kinds) for kinds in hs.METHODS.values())
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


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("methods")
    return written(folder / "mine.csv", rows(60, seed=0)), written(folder / "other.csv", rows(400, seed=1))


def test_the_named_methods_are_tried_and_no_others_and_the_run_remembers_them(tables: tuple[Path, Path], tmp_path: Path) -> None:
    mine, other = tables
    words = ["transfer", str(mine), "--target", "y", "--source-data", str(other), "--out", str(tmp_path / "run"), "--budget", "4m", "--methods"]
    CliRunner().invoke(app, [*words, "l2-sp, bitfit,co-tuning"], catch_exceptions=False)
    result = hs.load(tmp_path / "run")
    tried = {trial.method for trial in result.trials if trial.arm == "fine-tuned"}
    assert tried == {"l2-sp", "bitfit"}
    assert result.arm("fine-tuned").method in tried
    assert [note for note in result.notes if "co-tuning" in note]
    assert "target of classes" in " ".join(result.notes) or "classifier" in " ".join(result.notes)
    with pytest.raises(hs.InputError, match=r"holds another run \(its methods: \['l2-sp', 'bitfit', 'co-tuning'\] there, None here\)"):
        CliRunner().invoke(app, words[:-1], catch_exceptions=False)

"""``headstart adapt`` as a user types it: folders of images, tables with and without labels, several sources, and one clear line for what cannot be used."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import headstart as hs
from headstart.adaptation import SOURCE_ONLY, Adaptation
from headstart.adapting import differences, trying
from headstart.cli import app


@pytest.fixture(scope="module", autouse=True)
def short_plan() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trying, "TIERS", ((0.0, ("coral", "nn-weights")),))
        patch.setattr(trying, "RAW", {"image": (), "text": ("linear",), "tabular": ()})
        patch.setattr(trying, "PER_DEEP", 1e9)
        patch.setattr(differences, "MAPPED", 30)
        patch.setenv("COLUMNS", "200")
        yield


def typed(*words: str | Path) -> str:
    done = CliRunner().invoke(app, ["adapt", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refused(*words: str | Path) -> str:
    with pytest.raises(hs.InputError) as told:
        CliRunner().invoke(app, ["adapt", *map(str, words)], catch_exceptions=False)
    assert "\n" not in str(told.value)
    return str(told.value)


def pictures(root: Path, *, seed: int, grey: bool = False, n: int = 14) -> Path:
    """Dark and light squares with noise, in colour or grey, a folder for each class."""
    dice = np.random.default_rng(seed)
    for name, level in (("dark", 70), ("light", 190)):
        (root / name).mkdir(parents=True)
        for i in range(n):
            pixels = dice.normal(level, 30, (40, 40, 1 if grey else 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(np.repeat(pixels, 3, axis=2) if grey else pixels).save(root / name / f"{i:02d}.png")
    return root


def written(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def reviews(n: int, words: tuple[str, str], *, labels: bool = True) -> list[dict[str, str]]:
    dice = np.random.default_rng(len(words[0]))
    things = ("plot", "hero", "ending", "scene")
    said = [f"a {words[i % 2]} {dice.choice(things)} and a {words[i % 2]} {dice.choice(things)}, number {i}" for i in range(n)]
    return [{"review": text, **({"mood": ("good", "bad")[i % 2]} if labels else {})} for i, text in enumerate(said)]


def numbers(n: int, *, seed: int, move: float, labelled: int, more: str = "") -> list[dict[str, str]]:
    dice = np.random.default_rng(seed)
    x = dice.normal(size=(n, 3)) + move
    y = x @ [1.0, -2.0, 0.5] + 0.2 * dice.normal(size=n)
    return [
        {**{f"c{k}": f"{v:.4f}" for k, v in enumerate(row)}, **({more: "1"} if more else {}), "y": f"{y[i]:.4f}" if i < labelled else ""}
        for i, row in enumerate(x)
    ]


def test_folders_of_images_are_adapted_and_the_run_predicts(tmp_path: Path) -> None:
    source, target = pictures(tmp_path / "colour", seed=0), pictures(tmp_path / "grey", seed=1, grey=True)
    out = tmp_path / "run"
    text = typed(source, target, "--out", out, "--budget", "1h", "--network", "squeezenet")
    for part in (
        "Source colour: 28 images in 2 classes (dark 14, light 14)",
        "Target grey: 28 images, taken as unlabelled",
        "Verdict: ",
        "Shipped: ",
        str(out),
    ):
        assert part in text
    assert "Images of grey are grey, those of colour are in colour" in text
    assert "grey has 28 cases: with fewer than 50 every number about it is loose." in text
    assert "grey has 28 labels; they were not read." in text
    done = CliRunner().invoke(app, ["predict", str(out), str(target), "--out", str(tmp_path / "p.csv")], catch_exceptions=False)
    assert done.exit_code == 0
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert len(rows) == 28
    assert [row["label"] for row in rows] == [one.label for one in hs.load(out).predict([row["path"] for row in rows])]
    on = tmp_path / "on"
    text = typed(out, target, "--out", on, "--budget", "40s", "--score")  # the run alone, its images gone
    for part in (
        "Source colour: 28 images",
        "none is here, only the model adapted to grey",
        "Verdict: undecided (nothing is known",
        "is all that was gone on from.",
    ):
        assert part in text
    found = hs.load(on)
    assert isinstance(found, Adaptation)
    assert {"scaled", "em"} <= {c.name for c in found.candidates if c.status == "complete"}
    assert "--kind out" in refused(out, target, "--kind", "regression", "--out", tmp_path / "no")
    assert "--text and --target are for tables" in refused(out, target, "--target", "y", "--out", tmp_path / "no")


def test_labels_of_a_folder_are_those_of_its_class_folders(tmp_path: Path) -> None:
    target = pictures(tmp_path / "target", seed=1, n=3)
    (target / "_").mkdir()
    shutil.move(target / "dark" / "00.png", target / "_" / "a.png")
    shutil.move(target / "light" / "01.png", target / "b.png")
    task = hs.Task.target_from_folder(target)
    assert {Path(p).name: label for p, label in zip(task.target.x, task.target.y or (), strict=True) if label is None} == {"a.png": None, "b.png": None}
    assert sorted(label for label in task.target.y or () if label) == ["dark", "dark", "light", "light"]
    shutil.rmtree(target / "dark")
    shutil.rmtree(target / "light")
    assert hs.Task.target_from_folder(target).target.y is None


def test_texts_of_several_sources_need_no_target_column(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one.csv", reviews(24, ("fine", "poor"))), written(tmp_path / "two.csv", reviews(26, ("lovely", "dreadful")))
    target = written(tmp_path / "new.csv", reviews(20, ("great", "awful"), labels=False))
    out = tmp_path / "run"
    text = typed(one, two, target, "--text", "review", "--target", "mood", "--out", out, "--budget", "1h", "--network", "paraphrase-MiniLM-L3-v2")
    assert "Source two.csv: 26 texts in 2 classes" in text
    assert "The source nearest to new.csv is " in text
    found = hs.load(out)
    assert isinstance(found, Adaptation)
    names = {c.name: c.sources for c in found.candidates}
    assert names[SOURCE_ONLY] == ("one.csv", "two.csv")
    assert names["source only, two.csv alone"] == names["coral, two.csv alone"] == ("two.csv",)
    assert found.map is not None
    assert found.map.domains == ("one.csv", "two.csv", "new.csv")


def test_a_table_of_numbers_with_a_few_labels_is_tested(tmp_path: Path) -> None:
    source = written(tmp_path / "old.csv", numbers(80, seed=0, move=0.0, labelled=80, more="shop"))
    target = written(tmp_path / "new.csv", numbers(60, seed=1, move=1.5, labelled=24))
    out = tmp_path / "run"
    text = typed(source, target, "--target", "y", "--kind", "regression", "--target-labels", "some", "--out", out, "--budget", "1h")
    assert "new.csv lacks 'shop': not used. 3 shared column(s) are." in text
    assert "Target new.csv: 60 rows, 24 of them labelled" in text
    found = hs.load(out)
    assert isinstance(found, Adaptation)
    assert found.verdict.method == "test"
    assert found.candidates[0].target_score is not None
    assert found.candidates[0].target_score.value > 0.9  # the law is the same in both: nothing is to be gained
    assert found.verdict.decision != "adapt"
    assert len(found.predict([{"c0": 1.0, "c1": 1.0, "c2": 1.0}])) == 1


def test_what_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    table = written(tmp_path / "t.csv", reviews(20, ("good", "bad")))
    folder = pictures(tmp_path / "photos", seed=0, n=4)
    out = ("--out", tmp_path / "run")
    assert refused(table, *out).startswith("1 domain was given; a source and a target are needed")
    assert refused(table, folder, *out) == "Some domains are folders and others files. Give folders of images, or tables, the target last."
    assert refused(table, tmp_path / "gone.csv", *out).endswith("gone.csv does not exist. Give folders of images, or tables, the target last.")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text("{}")
    assert refused(tmp_path / "old", folder, *out).endswith("old holds an unfinished run; run the same command to finish it (result.json is missing).")
    assert "old is a run, a model without its data, and cannot be the target." in refused(folder, tmp_path / "old", *out)
    assert "old is a run, a model without its data, and cannot be one of several sources." in refused(folder, tmp_path / "old", folder, *out)
    assert "so --target is needed" in refused(table, table, *out)
    assert "--text, --target and --kind are for tables" in refused(folder, folder, "--target", "y", *out)
    assert refused(table, table, "--target-labels", "all", *out) == "--target-labels all is unknown. Say none (the default) or some."
    assert "Leave one of the two out" in refused(table, table, "--target-labels", "some", "--score", *out)

"""Budgets are read as people write them, and a folder belongs to one run."""

from pathlib import Path

import pytest

from headstart.core import Domain, InputError, Inspection, Task
from headstart.runs import Run, checked_margin, parse_budget


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("2h", 7200), ("1h30m", 5400), ("1.5m", 90), (45, 45), ("120", 120)])
def test_budgets_are_read(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["0", "0m", "3s", 0])
def test_a_budget_too_small_to_measure_anything_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"at least 10 are needed to measure anything\. Try 5m\."):
        parse_budget(text)


@pytest.mark.parametrize("text", ["soon", "5 minutes", "-5m", "", "5m!"])
def test_a_budget_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"is not a time\. Write seconds, minutes or hours"):
        parse_budget(text)


@pytest.mark.parametrize("margin", [-0.01, 1.0, 5.0, float("nan")])
def test_a_margin_that_is_no_gain_in_a_score_is_refused(margin: float) -> None:
    with pytest.raises(InputError, match=r"lies between 0 and 1, in balanced accuracy or R2\. For 2 points write 0\.02"):
        checked_margin(margin)


TASK = Task("classification", "image", Domain("photos", ["a", "b"], ["x", "y"]), ("x", "y"))


def look(*digests: str) -> Inspection:
    return Inspection(digests)


def claim(folder: Path, *, seed: int = 0, digests: tuple[str, str] = ("1", "2")) -> None:
    Run(folder).claim(TASK, look(*digests), ["s"], budget=60.0, seed=seed, margin=0.0, engine="auto")


def test_the_same_run_may_go_on_in_its_folder(tmp_path: Path) -> None:
    claim(tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    claim(tmp_path / "run")
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_another_run_in_the_folder_is_refused_and_left_whole(tmp_path: Path) -> None:
    claim(tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(InputError, match=r"holds another run \(its seed: 0 there, 1 here\). Choose another --out"):
        claim(tmp_path / "run", seed=1)
    with pytest.raises(InputError, match=r"holds another run \(its data: changed\)"):
        claim(tmp_path / "run", digests=("1", "3"))
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no run of Headstart"):
        claim(tmp_path)
    assert (tmp_path / "thesis.doc").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        claim(tmp_path / "file" / "run")

"""What the report shows beside the verdict."""

import numpy as np

from headstart.evidence import _draw, confusion, joined_groups, mistakes
from headstart.result import Confusion


def test_copies_join_groups_also_through_a_chain() -> None:
    groups = joined_groups(["p", "p", "q", "r", "s"], ["1", "2", "2", "3", "4"])
    assert groups is not None
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups.tolist())) == 3


def test_without_groups_or_copies_every_case_stands_alone() -> None:
    assert joined_groups(None, ["1", "2", "3"]) is None


def test_a_draw_keeps_proportions_and_two_of_each_class() -> None:
    y = np.repeat([0, 1, 2], [80, 15, 5])
    rows = _draw(y, np.arange(100), 20, seed=0)
    assert len(rows) == len(set(rows.tolist())) == 20
    counts = np.bincount(y[rows], minlength=3)
    assert counts.min() >= 2
    assert 12 <= counts[0] <= 18


def test_a_draw_of_everything_is_everything() -> None:
    assert _draw(np.zeros(5, int), np.arange(5), 9, seed=0).tolist() == [0, 1, 2, 3, 4]


def test_confusion_counts_true_rows_and_predicted_columns() -> None:
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert confusion(("a", "b"), np.array([0, 1, 1]), proba) == Confusion(("a", "b"), ((1, 0), (1, 1)))


def test_mistakes_are_the_wrong_ones_surest_first() -> None:
    from headstart.core import Domain, Task

    images = [np.full((8, 8, 3), v, dtype=np.uint8) for v in (0, 80, 160, 240)]
    task = Task("classification", "image", Domain("d", images, ["a", "a", "b", "b"]), ("a", "b"))
    proba = np.array([[0.4, 0.6], [0.1, 0.9], [0.3, 0.7], [0.8, 0.2]])
    found = mistakes(task, np.arange(4), np.array([0, 0, 1, 1]), proba, temperature=1.0)
    assert [round(m.probability, 6) for m in found] == [0.9, 0.8, 0.6]
    assert [(m.truth, m.predicted) for m in found] == [("a", "b"), ("b", "a"), ("a", "b")]
    assert all(m.thumbnail.startswith("data:image/jpeg;base64,") for m in found)

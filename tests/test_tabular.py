"""Rows of tables, the network for them, and a table as a source."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from headstart.core import Domain, InputError, Task
from headstart.modality import tabular
from headstart.pretrain import source_from_table

ROWS = [{"age": 20.0 + i, "town": "Ulm" if i % 2 else "Bonn"} for i in range(10)]


def table(name: str, rows: list[dict[str, float | str]], y: list[float]) -> Task:
    return Task("regression", "tabular", Domain(name, rows, y))


def test_a_row_becomes_numbers_and_one_column_per_category() -> None:
    body = tabular.network(tabular.features_of(ROWS), seed=0)
    assert tabular.encode({"age": 3.0, "town": "Ulm"}, body).tolist() == [3.0, 0.0, 1.0]
    unknown = tabular.encode({"town": "Rome"}, body).tolist()
    assert math.isnan(unknown[0])
    assert unknown[1:] == [0.0, 0.0]


def test_equal_rows_have_equal_digests_whatever_the_order_of_columns() -> None:
    assert tabular.digest({"a": 1.0, "b": "x"}) == tabular.digest({"b": "x", "a": 1.0}) != tabular.digest({"a": 1.0, "b": "y"})


def test_an_inspection_counts_columns_and_gaps() -> None:
    rows = [*ROWS, {"age": math.nan}]
    _, found = tabular.inspect(table("t", rows, [0.0] * 11))
    assert found.facts == {"Columns": "1 numeric, 1 of categories", "Missing values": "9.1%"}  # 2 of 22


def test_standardising_gives_mean_0_deviation_1_and_gaps_the_mean() -> None:
    layer = tabular.Standardise(2)
    x = np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0]])
    layer.learn(x)
    assert layer(torch.from_numpy(x).float()).tolist() == [[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]


def world(n: int, *, seed: int, shift: float = 0.0) -> tuple[list[dict[str, float | str]], list[float]]:
    """y = sin(3 a) b: a product that a linear model on the columns cannot see."""
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(-1, 1, n), rng.uniform(-1, 1, n)
    rows: list[dict[str, float | str]] = [{"a": float(u), "b": float(v)} for u, v in zip(a, b, strict=True)]
    return rows, [float(v) for v in np.sin(3 * a) * b + shift]


def test_features_of_a_related_table_explain_what_the_columns_alone_do_not() -> None:
    from sklearn.linear_model import RidgeCV

    (rows, y), (more, z) = world(80, seed=1, shift=2.0), world(700, seed=2)
    source = source_from_table(table("other", more, z), table("mine", rows, y), seed=0)
    body = source.backbone
    with torch.no_grad():
        x = body(tabular.collate([tabular.encode(row, body) for row in rows], body)).numpy()
    train, test = slice(0, 40), slice(40, 80)
    plain = x[:, :2]
    alone, carried = (RidgeCV(np.logspace(-3, 3, 7)).fit(f[train], y[train]).score(f[test], y[test]) for f in (plain, x))
    assert alone < 0.2
    assert carried > 0.7


def test_a_table_source_is_its_content_and_seed() -> None:
    (rows, y), (more, z) = world(20, seed=1), world(60, seed=2)
    one, same, other = (source_from_table(table("other", more, z), table("mine", rows, y), seed=seed) for seed in (0, 0, 1))
    assert one.weights_sha256 == same.weights_sha256 != other.weights_sha256
    state, again = one.backbone.state_dict(), same.backbone.state_dict()
    assert all(torch.equal(state[k], again[k]) for k in state)


def test_a_column_that_the_source_never_saw_adds_no_noise_to_what_it_learned() -> None:
    (rows, y), (more, z) = world(20, seed=1), world(60, seed=2)
    mine = [{**row, "new": float(i)} for i, row in enumerate(rows)]
    body = source_from_table(table("other", more, z), table("mine", mine, y), seed=0).backbone
    changed = [{**row, "new": 99.0} for row in mine]
    with torch.no_grad():
        one, two = (body(tabular.collate([tabular.encode(row, body) for row in rows], body)) for rows in (mine, changed))
    column = [f[0] for f in tabular.features_of([*mine, *more])].index("new")
    rest = [i for i in range(one.shape[1]) if i != column]
    assert torch.equal(one[:, rest], two[:, rest])
    assert not torch.equal(one[:, column], two[:, column])


def test_tables_without_a_shared_column_are_refused() -> None:
    with pytest.raises(InputError, match="other and mine share no column, so nothing can be carried over"):
        source_from_table(table("other", [{"p": 1.0}] * 9, [0.0] * 9), table("mine", [{"q": 1.0}] * 9, [0.0] * 9), seed=0)

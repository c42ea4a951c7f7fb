"""Files of rows become tasks; what cannot be read says where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headstart.core import InputError, Task
from headstart.modality.table import read_items, task_from_table, tasks_from_table

ROWS = [{"size": str(i), "town": "Ulm" if i % 3 else "", "note": f"note {i}", "good": "yes" if i % 2 else "no"} for i in range(12)]

MEND = ", not a finite number. Mend it, or say --kind classification."


def write(path: Path, rows: list[dict[str, Any]], *, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding=encoding)
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        lines = [list(rows[0]), *([str(v) for v in row.values()] for row in rows)]
        path.write_text("\n".join(delimiter.join(line) for line in lines) + "\n", encoding=encoding)
    return path


def test_a_table_keeps_numbers_and_categories_and_leaves_identifiers_out(tmp_path: Path) -> None:
    rows = [{**row, "note": f"{row['note']} and {i}"} for i, row in enumerate(ROWS * 4)]
    task = task_from_table(write(tmp_path / "t.csv", rows), target="good")
    assert (task.kind, task.modality, task.labels) == ("classification", "tabular", ("no", "yes"))
    assert task.target.x[0] == {"size": 0.0}  # the town is missing
    assert task.target.x[1] == {"size": 1.0, "town": "Ulm"}
    assert task.columns["left out"] == "note"


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
def test_every_format_gives_the_same_task(name: str, tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.csv", ROWS)
    other = write(tmp_path / name, ROWS, delimiter="\t" if name == "t.tsv" else ",")
    one, two = (task_from_table(path, target="good", text="note") for path in (plain, other))
    assert (one.target.x, one.target.y) == (two.target.x, two.target.y)
    assert one.modality == "text"


def test_semicolons_quotes_and_windows_letters_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('text;label\n"Grüße; an alle";a\n'.encode("cp1252") + b"x;b\n" * 4 + b"y;a\n" * 3)
    task = task_from_table(path, text="text", target="label")
    assert task.target.x[0] == "Grüße; an alle"


def kinds(task: Task) -> tuple[str, int]:
    return task.kind, len(task.labels)


def test_many_different_numbers_are_regressed_and_few_are_classes(tmp_path: Path) -> None:
    few = write(tmp_path / "few.csv", [{"x": str(i), "y": str(i % 3)} for i in range(60)])
    many = write(tmp_path / "many.csv", [{"x": str(i), "y": str(i / 7)} for i in range(60)])
    assert kinds(task_from_table(few, target="y")) == ("classification", 3)
    assert kinds(task_from_table(many, target="y")) == ("regression", 0)
    assert kinds(task_from_table(few, target="y", kind="regression")) == ("regression", 0)


def test_groups_are_a_column_and_not_learned_from(tmp_path: Path) -> None:
    task = task_from_table(write(tmp_path / "t.csv", [{**r, "who": f"p{i // 2}"} for i, r in enumerate(ROWS)]), target="good", group_by="who")
    assert task.target.groups is not None
    assert task.target.groups[:3] == ["p0", "p0", "p1"]
    assert "who" not in task.target.x[0]


def test_items_are_read_without_the_target(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ROWS)
    assert read_items(path, text="note") == [row["note"] for row in ROWS]
    assert set(read_items(path, text=None, leave_out=("good",))[1]) == {"size", "town", "note"}


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a,b\n1,2\n", {"target": "c"}, "t.csv has no column 'c'. It has: a, b."),
        ("size,label\n1,2\n", {"target": "lable"}, "t.csv has no column 'lable'. Did you mean 'label'?"),
        ("a,b\n1,x\n2,\n", {"target": "b"}, "t.csv, row 2: the target 'b' is empty. Fill it in, or remove the row."),
        ("a,b\n1,x\n2,y,3\n", {"target": "b"}, "t.csv, row 2: 3 fields, but the header has 2. Quote fields that hold ',', or mend the row."),
        ("a,a\n1,x\n", {"target": "a"}, "t.csv has two columns named 'a'. Rename one."),
        ("a,b\n", {"target": "b"}, "t.csv holds no rows. Give a table with a header and rows."),
        ("a,b\n1,x\n2,x\n", {"target": "b"}, "t.csv: every 'b' is 'x'; at least 2 classes are needed. Add rows of another class."),
        ("b\nx\ny\n", {"target": "b"}, "t.csv has no column to learn from beside the target. Columns: b."),
        ("a,b\n1,x\n2,y\n", {"target": "b"}, "t.csv: class 'x' has only 1 row(s); at least 4 are needed. Add rows, or leave it out."),
        (
            "a,b\n1,3\n2,y\n",
            {"target": "b", "kind": "regression"},
            f"t.csv, row 2: the target 'b' is 'y'{MEND}",
        ),
        ("a,b\n" + "1,x\n2,y\n" * 4, {"target": "b", "kind": "ranking"}, "The kind 'ranking' is not known. Say classification or regression."),
    ],
)
def test_a_bad_table_is_refused_in_one_line(content: str, options: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError) as caught:
        task_from_table(tmp_path / "t.csv", **options)
    assert str(caught.value).replace(f"{tmp_path}/", "") == message


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(InputError, match=r"t.jsonl, line 2: not JSON \(Expecting value\). Write one object per line."):
        task_from_table(tmp_path / "t.jsonl", target="a")
    (tmp_path / "t.jsonl").write_text("[1]\n")
    with pytest.raises(InputError, match=r"t.jsonl, line 1: list, but an object with named columns is needed"):
        task_from_table(tmp_path / "t.jsonl", target="a")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a file. Give a table: .csv"):
        task_from_table(tmp_path / "none.csv", target="a")
    (tmp_path / "t.xlsx").touch()
    with pytest.raises(InputError, match=r"t.xlsx ends in .xlsx; .csv, .*can be read. Save it as one of them."):
        task_from_table(tmp_path / "t.xlsx", target="a")
    (tmp_path / "t.parquet").write_text("no")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        task_from_table(tmp_path / "t.parquet", target="a")


def test_several_targets_are_tasks_that_do_not_learn_from_each_other_and_a_gap_is_a_missing_label(tmp_path: Path) -> None:
    rows = [{"size": str(i), "note": f"note {i}", "good": "yes" if i % 2 else "no", "grade": f"{i / 2:g}" if i % 3 else ""} for i in range(60)]
    path = write(tmp_path / "t.csv", rows)
    tasks = tasks_from_table(path, targets=["good", "grade"], text="note")
    assert {name: (t.kind, len(t.target), t.labels) for name, t in tasks.items()} == {
        "good": ("classification", 60, ("no", "yes")),
        "grade": ("regression", 40, ()),
    }
    assert tasks["grade"].target.x[:2] == ["note 1", "note 2"]
    assert tasks["grade"].target.y[:2] == [0.5, 1.0]  # type: ignore[index]
    plain = tasks_from_table(path, targets=["good", "grade"])
    assert plain["grade"].target.x[0] == {"size": 1.0}
    with pytest.raises(InputError, match=r"has no column 'gade'\. Did you mean 'grade'"):
        tasks_from_table(path, targets=["good", "gade"])

"""Files of rows (CSV, JSON lines, Parquet) become tasks: of texts where a column is named, else of all columns.

Values are taken as they are written: a column is numeric when every value in it is a number, and nothing else is guessed.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from headstart.core import MIN_PER_CLASS, Domain, InputError, Task

MOST_LABELS = 20  # numbers with more different values than this are regressed
ENCODINGS = ("utf-8-sig", "cp1252")
READERS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
Columns = dict[str, list[Any]]


def task_from_table(
    path: str | Path, *, target: str, text: str | None = None, kind: str | None = None, group_by: str | None = None, columns: Sequence[str] | None = None
) -> Task:
    """Return the task of a file's rows.

    Parameters
    ----------
    path : .csv (comma, semicolon or tab; UTF-8, else Windows-1252), .jsonl (an object per line) or .parquet
    target : column to predict
    text : column that holds the texts; ``None`` makes a task of all other columns. Columns of words of which nearly every value differs
        (names, identifiers) are then left out, for they tell rows apart and nothing else
    kind : "classification" or "regression"; ``None``: regression where every target is a number and more than 20 differ
    group_by : column; rows with the same value in it are never on both sides of a split, and it is not learned from
    columns : the columns to learn from; ``None``: all

    Raises
    ------
    InputError
        the file cannot be read (with the row), has no such column (with the nearest names), an empty target or text (with the row), or one class.
    """
    path = Path(path)
    table = read_columns(path)
    y = _targets(path, table, target)
    groups = None if group_by is None else [str(v) for v in _column(path, table, group_by)]
    x, left_out = _inputs(path, table, text=text, skip={target, group_by}, columns=columns)
    return _task(path, target, y, x, groups, kind=kind, text=text, left_out=left_out)


def tasks_from_table(path: str | Path, *, targets: Sequence[str], text: str | None = None, group_by: str | None = None) -> dict[str, Task]:
    """Return a task for each of several target columns; none of them is learned from, and a row without a target is left out of that task alone.

    Kinds are decided column by column as in :func:`task_from_table`, which says what the parameters mean and which errors there are.
    """
    path = Path(path)
    table = read_columns(path)
    groups = None if group_by is None else [str(v) for v in _column(path, table, group_by)]
    x, left_out = _inputs(path, table, text=text, skip={*targets, group_by}, columns=None)
    tasks = {}
    for target in targets:
        y = _column(path, table, target)
        have = [i for i, v in enumerate(y) if not _is_missing(v)]
        if not have:
            raise InputError(f"{path}: every {target!r} is empty. Fill some in, or leave the column out.")
        mine = None if groups is None else [groups[i] for i in have]
        tasks[target] = _task(path, target, [y[i] for i in have], [x[i] for i in have], mine, kind=None, text=text, left_out=left_out)
    return tasks


def target_from_table(path: str | Path, *, target: str | None, text: str | None = None, kind: str = "classification", group_by: str | None = None) -> Task:
    """Return the task of a domain to adapt to: a file's texts, or its rows with all other columns, and labels as far as it has them.

    The column ``target`` may be missing, and its empty cells are cases without a label. Whether labels are looked at is for :func:`headstart.adapt` to say.

    Raises
    ------
    InputError
        as :func:`task_from_table` does, but for a target that is missing or empty.
    """
    path = Path(path)
    table = read_columns(path)
    groups = None if group_by is None else [str(v) for v in _column(path, table, group_by)]
    x, _ = _inputs(path, table, text=text, skip={target, group_by}, columns=None, keep_all=True)
    given = table.get(target or "", [None] * len(x))
    y: list[Any] = [None if _is_missing(v) else _label(v) for v in given]
    if kind == "regression":
        numbers = [None if v is None else _number(v) for v in y]
        wrong = next((i for i, (v, n) in enumerate(zip(y, numbers, strict=True)) if v is not None and n is None), None)
        if wrong is not None:
            raise InputError(f"{path}, row {wrong + 1}: the target {target!r} is {y[wrong]!r}, not a finite number. Mend it, or leave it empty.")
        y = numbers
    known = None if all(v is None for v in y) else y
    modality: Literal["text", "tabular"] = "text" if text else "tabular"
    return Task("regression" if kind == "regression" else "classification", modality, Domain(path.name, x, known, groups))


def unlabelled_from_table(path: str | Path, *, text: str | None = None) -> Task:
    """Return a task without targets of a file's texts, or of its rows with all their columns: what ``assess`` can compare and describe.

    Raises ``InputError`` as :func:`task_from_table` does.
    """
    path = Path(path)
    x, left_out = _inputs(path, read_columns(path), text=text, skip=set(), columns=None)
    named = {**({"text": text} if text else {}), **({"left out": ", ".join(left_out)} if left_out else {})}
    return Task("classification", "text" if text else "tabular", Domain(path.name, x), columns=named)


def _task(
    path: Path, target: str, y: list[Any], x: list[Any], groups: list[str] | None, *, kind: str | None, text: str | None, left_out: Sequence[str]
) -> Task:
    """Return the task of inputs and targets that were read, of the kind that is asked for or that the targets look like."""
    numbers = [_number(v) for v in y]
    decided = kind or ("regression" if None not in numbers and len(set(numbers)) > MOST_LABELS else "classification")
    named = {"target": target, **({"text": text} if text else {}), **({"left out": ", ".join(left_out)} if left_out else {})}
    modality: Literal["text", "tabular"] = "text" if text else "tabular"
    if decided == "regression":
        return Task("regression", modality, Domain(path.name, x, _all_numbers(path, target, y, numbers), groups), columns=named)
    if decided != "classification":
        raise InputError(f"The kind {kind!r} is not known. Say classification or regression.")
    names = [_label(v) for v in y]
    _check_labels(path, target, names)
    return Task("classification", modality, Domain(path.name, x, names, groups), tuple(sorted(set(names))), columns=named)


def read_items(path: str | Path, *, text: str | None, leave_out: Sequence[str] = ()) -> list[Any]:
    """Return the raw inputs of a file without targets: its texts, or its rows without the columns that are left out."""
    path = Path(path)
    return _inputs(path, read_columns(path), text=text, skip=set(leave_out), columns=None, keep_all=True)[0]


def read_columns(path: Path) -> Columns:
    """Return a file's columns in order: strings or ``None`` of a CSV file, plain values of the others. Raises ``InputError`` with the row."""
    if not path.is_file():
        raise InputError(f"{path} is not a file. Give a table: {', '.join(READERS)}.")
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise InputError(f"{path} ends in {suffix or 'nothing'}; {', '.join(READERS)} can be read. Save it as one of them.")
    read = {".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json_lines, ".parquet": _parquet}.get(suffix, _csv)
    table = read(path)
    if not table or not next(iter(table.values())):
        raise InputError(f"{path} holds no rows. Give a table with a header and rows.")
    return table


def _csv(path: Path) -> Columns:
    content = path.read_bytes()
    for encoding in ENCODINGS:
        try:
            words = content.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise InputError(f"{path} is neither UTF-8 nor Windows-1252 text. Save it as UTF-8.")
    csv.field_size_limit(2**27)
    first = words.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(words), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"{path} is not a well-formed CSV file ({error}). Check its quotes.") from None
    header, body = (rows[0], [row for row in rows[1:] if row]) if rows else ([], [])
    twice = [name for name, n in Counter(header).items() if n > 1]
    if twice:
        raise InputError(f"{path} has two columns named {twice[0]!r}. Rename one.")
    for i, row in enumerate(body, 1):
        if len(row) != len(header):
            raise InputError(f"{path}, row {i}: {len(row)} fields, but the header has {len(header)}. Quote fields that hold {delimiter!r}, or mend the row.")
    return {name: [row[j] if row[j].strip() else None for row in body] for j, name in enumerate(header)}


def _json_lines(path: Path) -> Columns:
    rows = []
    for i, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {i}: not JSON ({error.msg}). Write one object per line.") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {i}: {type(row).__name__}, but an object with named columns is needed. Write one object per line.")
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _parquet(path: Path) -> Columns:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise InputError(f"Reading {path} needs pyarrow. Install it: pip install 'headstart[text]'.") from None
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}). Write it again.") from None
    return {str(name): table.column(name).to_pylist() for name in table.column_names}


def _column(path: Path, table: Columns, name: str) -> list[Any]:
    if name not in table:
        near = difflib.get_close_matches(name, table, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"It has: {', '.join(table)}."
        raise InputError(f"{path} has no column {name!r}. {hint}")
    return table[name]


def _targets(path: Path, table: Columns, target: str) -> list[Any]:
    y = _column(path, table, target)
    for i, value in enumerate(y, 1):
        if _is_missing(value):
            raise InputError(f"{path}, row {i}: the target {target!r} is empty. Fill it in, or remove the row.")
    return y


def _inputs(
    path: Path, table: Columns, *, text: str | None, skip: set[str | None], columns: Sequence[str] | None, keep_all: bool = False
) -> tuple[list[Any], list[str]]:
    """Return texts, or rows as mappings, and the names of columns that were left out as identifiers."""
    if text is not None:
        return ["" if _is_missing(v) else str(v) for v in _column(path, table, text)], []
    names = [n for n in (columns if columns is not None else table) if n not in skip]
    kept, left_out = {}, []
    for name in names:
        values = _typed(_column(path, table, name))
        different = {v for v in values if isinstance(v, str)}
        if not keep_all and len(different) > max(MOST_LABELS, len(values) // 2):
            left_out.append(name)
        else:
            kept[name] = values
    if not kept:
        texts = f" To read {left_out[0]!r} as text: --text {left_out[0]}." if left_out else ""
        raise InputError(f"{path} has no column to learn from beside the target. Columns: {', '.join(table)}.{texts}")
    n = len(next(iter(kept.values())))
    return [{name: values[i] for name, values in kept.items() if values[i] is not None} for i in range(n)], left_out


def _typed(values: Sequence[Any]) -> list[float | str | None]:
    """Return floats where every value is a number (NaN for a gap), else words (``None`` for a gap)."""
    numbers = [None if _is_missing(v) else _number(v) for v in values]
    if all(number is not None or _is_missing(v) for number, v in zip(numbers, values, strict=True)):
        return [math.nan if number is None else number for number in numbers]
    return [None if _is_missing(v) else _label(v) for v in values]


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).strip()


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and not value.strip())


def _all_numbers(path: Path, target: str, y: Sequence[Any], numbers: Sequence[float | None]) -> list[float]:
    for i, (value, number) in enumerate(zip(y, numbers, strict=True), 1):
        if number is None:
            raise InputError(f"{path}, row {i}: the target {target!r} is {value!r}, not a finite number. Mend it, or say --kind classification.")
    return [number for number in numbers if number is not None]


def _check_labels(path: Path, target: str, names: Sequence[str]) -> None:
    counts = Counter(names)
    if len(counts) < 2:
        raise InputError(f"{path}: every {target!r} is {names[0]!r}; at least 2 classes are needed. Add rows of another class.")
    for name, n in sorted(counts.items()):
        if n < MIN_PER_CLASS:
            many = f" It has {len(counts)} different values: for numbers say --kind regression." if len(counts) > MOST_LABELS else ""
            raise InputError(f"{path}: class {name!r} has only {n} row(s); at least {MIN_PER_CLASS} are needed. Add rows, or leave it out.{many}")

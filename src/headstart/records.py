"""Findings as plain values for JSON, and back. Only the standard library is imported, so that a script may read findings without PyTorch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_type_hints


def plain(value: Any) -> Any:
    """Return findings as what JSON knows: dataclasses and mappings as objects, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def built(kind: Any, values: Any) -> Any:
    """Return findings of that kind from what :func:`plain` made of them."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{k: built(hints[k], v) for k, v in values.items()})
    args = getattr(kind, "__args__", ())
    origin = getattr(kind, "__origin__", None)
    if values is None or origin is Literal:
        return values
    if origin is tuple:
        inner: tuple[Any, ...] = args[:1] * len(values) if Ellipsis in args else args
        return tuple(built(a, v) for a, v in zip(inner, values, strict=True))
    if origin is None and args:  # X | None
        return built(next(a for a in args if a is not type(None)), values)
    return values


def as_json(found: Any, *, without: Collection[str] = (), **more: Any) -> str:
    """Return findings as JSON text, ``without`` the fields of those names and with ``more`` values: sorted keys, so that equal findings give equal bytes."""
    values = {f.name: plain(getattr(found, f.name)) for f in dataclasses.fields(found) if f.name not in without}
    return json.dumps({**more, **values}, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_whole(text: str, path: Path) -> Path:
    """Write text to ``path``, whole or not at all, and return the path."""
    scratch = path.with_name(f".{path.name}.new")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path

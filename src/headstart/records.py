"""Findings as plain values for JSON, and back. Only the standard library is imported, so that a script may read findings without PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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

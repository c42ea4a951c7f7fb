"""Doors to the world: each modality opens its files and makes them what a backbone of that modality takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from torch import Tensor

from headstart.core import Backbone, Inspection, Task


class Door(Protocol):
    """What the module of a modality offers."""

    def digest(self, item: Any) -> str:
        """Return the SHA-256 of one raw input's content."""

    def inspect(self, task: Task, *, skip_unreadable: bool = False, progress: Callable[[int], None] | None = None) -> tuple[Task, Inspection]:
        """Read every input once; return the task without what cannot be read, where that may be skipped, and what was found."""

    def show(self, item: Any) -> tuple[str, str]:
        """Return how a report shows one input: a small picture as a ``data:`` address, or a short text; the other is empty."""

    def encode(self, item: Any, backbone: Backbone) -> Tensor:
        """Return one raw input as a small tensor (bytes of pixels, token ids); called in threads."""

    def collate(self, encoded: Sequence[Tensor], backbone: Backbone) -> Tensor:
        """Return a batch of encoded inputs as the backbone's input at cut 0."""


def door(modality: str) -> Door:
    """Return the module that opens a modality: "image", "text" or "tabular"."""
    return cast(Door, import_module(f"headstart.modality.{modality}"))

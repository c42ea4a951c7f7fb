"""Sources that a user adds: a small TOML file, or an entry point of an installed package.

    [sources.our-resnet]                            # the name it is called by
    network = "timm:resnet50@weights/ours.pth"      # anything that ``sources.get`` takes
    trained_on = "40,000 of our own radiographs"
    licence = "internal"

Read from the file that ``HEADSTART_SOURCES`` names, else from ``headstart.toml`` here and ``headstart/sources.toml`` in the user's configuration folder.
A package offers a function that returns a source, or several, under the entry-point group ``headstart.sources``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from headstart.core import InputError, Source

GROUP = "headstart.sources"
FIELDS = {"network", "trained_on", "licence"}


def places() -> list[Path]:
    """Return the files that are looked for, in order."""
    if os.environ.get("HEADSTART_SOURCES"):
        return [Path(os.environ["HEADSTART_SOURCES"])]
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [Path("headstart.toml"), config / "headstart" / "sources.toml"]


def added(get: Callable[[str], Source]) -> Iterator[Source]:
    """Yield the user's own sources; ``get`` opens the network that one names, which is how its stages and width are known."""
    for path in places():
        if path.is_file():
            yield from _of_file(path, get)
    for point in entry_points(group=GROUP):
        made = point.load()()
        yield from made if isinstance(made, list | tuple) else (made,)


def _of_file(path: Path, get: Callable[[str], Source]) -> Iterator[Source]:
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}. Mend it there.") from None
    for name, said in plain.get("sources", {}).items():
        unknown = sorted(set(said) - FIELDS)
        if "network" not in said or unknown:
            what = f"does not know {unknown[0]!r}" if unknown else "needs network"
            raise InputError(f"{path}: [sources.{name}] {what}. Fields: {', '.join(sorted(FIELDS))}.")
        yield _named(name, said, get, path)


def _named(name: str, said: dict[str, Any], get: Callable[[str], Source], path: Path) -> Source:
    """Return what the network stands for under its new name; a path of weights counts from the file that names it."""
    architecture, at, file = said["network"].partition("@")
    where = f"{architecture}@{path.parent / file}" if at else architecture
    return replace(get(where), name=name, **{k: said[k] for k in ("trained_on", "licence") if k in said})

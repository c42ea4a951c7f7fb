"""Sources that a user adds: a small TOML file, or an entry point of an installed package.

    [sources.our-resnet]                            # the name it is called by
    network = "timm:resnet50@weights/ours.pth"      # anything that ``sources.get`` takes; paths count from this file's folder
    trained_on = "40,000 of our own radiographs"    # shown in lists and reports, as are licence and labels
    licence = "internal"

    [sources.our-resnet.preprocess]                 # where the weights do not say it themselves, or wrongly
    size = 320
    mean = [0.5, 0.5, 0.5]

Read from the files that ``HEADSTART_SOURCES`` names, else from ``headstart.toml`` here and ``headstart/sources.toml`` in the user's configuration
folder; the first that has a name wins. A package offers a source, a list of them, or a function that returns either, under the entry-point group
``headstart.sources``.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from headstart.core import InputError, Preprocess, Source

GROUP = "headstart.sources"
VARIABLE = "HEADSTART_SOURCES"
WANTED = {
    "network": "a text, such as 'timm:resnet50@ours.pth'",
    "trained_on": "a text",
    "licence": "a text",
    "labels": "a list of texts, in the order of the classifier's classes",
    "preprocess": "a table with size, crop, interpolation, mean, std or channels",
}
KINDS: Mapping[str, type] = {"network": str, "trained_on": str, "licence": str, "labels": list, "preprocess": dict}
Get = Callable[..., Source]


@dataclass(frozen=True)
class Entry:
    """One source of a file: its name, what stands for its network, and what is said of it."""

    name: str
    network: str
    file: Path
    about: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Preprocess | None = None

    def open(self, get: Get) -> Source:
        """Return it with its network; ``get`` makes the network's source. Raises ``InputError`` that names the file it stands in."""
        try:
            return replace(get(self.network, preprocess=self.preprocess), name=self.name, **self.about)
        except InputError as error:
            raise InputError(f"Source {self.name!r} of {self.file}: {error}") from None

    def listed(self, get: Get, here: Callable[[str], Path | None]) -> Source:
        """Return it for a list: nothing is opened or fetched before its backbone is asked for. ``here`` says where a network lies."""
        try:
            path = here(self.network)
        except InputError as error:
            raise InputError(f"Source {self.name!r} of {self.file}: {error}") from None
        modality: Any = "text" if self.network.startswith("hf:") or (path is not None and path.is_dir()) else "image"
        source = Source(self.name, origin=self.network, modality=modality, **self.about)
        if path is None:
            return replace(source, origin=f"{self.network}, which {self.file} names, is not here yet; using it fetches it")
        return replace(source, opener=lambda: self.open(get).backbone, digest=lambda: self.open(get).weights_sha256)


def entries() -> list[Entry]:
    """Return the sources of the user's files. Raises ``InputError`` with file and line for what is damaged or not understood."""
    out: dict[str, Entry] = {}
    for path in places():
        for entry in _of_file(path):
            out.setdefault(entry.name, entry)
    return list(out.values())


def places() -> list[Path]:
    """Return the files that there are, in order. Raises ``InputError`` for one that the variable names and that is not there."""
    named = [Path(text).expanduser() for text in os.environ.get(VARIABLE, "").split(os.pathsep) if text]
    for path in named:
        if not path.is_file():
            raise InputError(f"{VARIABLE} names {path}, which is no file. Correct it, or unset it.")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return named or [path for path in (Path("headstart.toml"), config / "headstart" / "sources.toml") if path.is_file()]


def offered() -> list[Source]:
    """Return the sources of installed packages, by the names of their entry points. Raises ``InputError`` for one that does not load."""
    points = sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))
    return [source for point in points for source in _of_package(point)]


def _of_package(point: EntryPoint) -> list[Source]:
    whose = f"The entry point {point.name!r} ({point.value}) of {point.dist.name if point.dist else 'a package'}"
    try:
        made = point.load()
    except (ImportError, AttributeError) as error:
        raise InputError(f"{whose} does not load ({error}). Repair or uninstall that package.") from None
    made = made() if callable(made) else made
    listed = list(made) if isinstance(made, list | tuple) else [made]
    wrong = next((type(one).__name__ for one in listed if not isinstance(one, Source)), None)
    if wrong is not None:
        raise InputError(f"{whose} gives {wrong}; a headstart.Source, or a list of them, is needed. Repair or uninstall that package.")
    return listed


def _of_file(path: Path) -> list[Entry]:
    try:
        text = path.read_text(encoding="utf-8")
        plain = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        line = int(at[1]) if at else len(text.splitlines())
        raise InputError(f"{path}, line {line}: {str(error).split(' (at')[0]}. Mend it there; a source begins with [sources.NAME].") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text ({error}). Mend it, or remove it.") from None
    tables = plain.get("sources", {})
    if not isinstance(tables, dict) or not all(isinstance(said, dict) for said in tables.values()):
        raise InputError(f"{path}, line {_line(text, 'sources')}: sources is no table. Begin each source with [sources.NAME].")
    return [_entry(path, text, name, said) for name, said in tables.items()]


def _entry(path: Path, text: str, name: str, said: Mapping[str, Any]) -> Entry:
    for key, value in said.items():
        at = f"{path}, line {_line(text, name, key)}: [sources.{name}]"
        if key not in KINDS:
            near = get_close_matches(key, KINDS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise InputError(f"{at} does not know {key!r}.{hint} Fields: {', '.join(sorted(KINDS))}.")
        if not isinstance(value, KINDS[key]):
            raise InputError(f"{at} has {value!r} for {key}. Write {WANTED[key]}.")
    if "network" not in said:
        raise InputError(f"{path}, line {_line(text, name)}: [sources.{name}] needs network: {WANTED['network']}.")
    about = {key: said[key] for key in ("trained_on", "licence") if key in said} | {"labels": tuple(map(str, said.get("labels", ())))}
    look = _preprocess(said["preprocess"], f"{path}, line {_line(text, name, 'preprocess')}") if "preprocess" in said else None
    return Entry(name, _from_folder(said["network"], path.parent), path, {k: v for k, v in about.items() if v}, look)


def _preprocess(plain: Mapping[str, Any], at: str) -> Preprocess:
    known = [f.name for f in dataclasses.fields(Preprocess)]
    for key, value in plain.items():
        if key not in known:
            raise InputError(f"{at}: there is no {key!r} in a preprocessing. Fields: {', '.join(known)}.")
        default = getattr(Preprocess(), key)
        kind = list if isinstance(default, tuple) else (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, kind):
            raise InputError(f"{at}: {key} is {value!r}. Write it like {list(default) if isinstance(default, tuple) else default!r}.")
    return Preprocess.of(plain)


def _from_folder(network: str, folder: Path) -> str:
    """Return the network with its path counted from the folder of the file that names it."""
    scheme, colon, rest = network.partition(":")
    if not colon:
        return str(folder / Path(network).expanduser())
    architecture, at, file = rest.partition("@")
    return f"{scheme}:{architecture}@{folder / Path(file).expanduser()}" if at and scheme != "hf" else network


def _line(text: str, name: str, key: str | None = None) -> int:
    """Return the line, from 1, where a source or one of its fields stands; that of the source where the field stands elsewhere."""
    lines = text.splitlines()
    quoted = rf"""["']?{re.escape(name)}["']?"""
    begins = re.compile(rf"\s*(\[\s*)?(sources\s*\.\s*)?{quoted}\s*[\].=]")
    start = next((i for i, line in enumerate(lines) if begins.match(line)), 0)
    if key is not None:
        field_ = re.compile(rf"\s*(\[.*\.\s*)?{re.escape(key)}\s*[\]=.]")
        start = next((i for i in range(start, len(lines)) if field_.match(lines[i])), start)
    return start + 1

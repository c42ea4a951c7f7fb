"""The activation store: what frozen stages produced, on disk, keyed by content, memory-mapped.

A *space* is everything that decides the numbers (weights, cut, preprocessing, engine, dtype, view, library versions); a row is one input's
digest. Rows come in shards: immutable files that appear whole or not at all, so a killed or a second writer can harm no reader.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core import InputError

MAGIC = b"HEADSTART1"
ALIGN = 64
SUFFIX = ".rows"


def default_root() -> Path:
    """Return where activations are kept: ``HEADSTART_CACHE``, else ``headstart`` under ``XDG_CACHE_HOME``, else under ``~/.cache``."""
    if os.environ.get("HEADSTART_CACHE"):
        return Path(os.environ["HEADSTART_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headstart"


@dataclass(frozen=True)
class Store:
    """A folder of spaces.

    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> space = store.space({"weights": "ab", "cut": 3})
    >>> space.append(["x", "y"], np.eye(2, dtype=np.float32))
    >>> space.missing(["y", "z"])
    [1]
    >>> space.read(["y"]).tolist()
    [[0.0, 1.0]]
    """

    root: Path

    def space(self, fields: Mapping[str, Any]) -> Space:
        """Return the space of those fields; equal fields, in any order, are the same space."""
        text = json.dumps(fields, sort_keys=True)
        return Space(self.root / hashlib.sha256(text.encode()).hexdigest()[:32], text)


@dataclass
class Space:
    """Rows of one kind, by digest."""

    folder: Path
    fields: str
    _places: dict[str, tuple[Path, int]] = field(default_factory=dict, repr=False)
    _shards: dict[Path, _Shard] = field(default_factory=dict, repr=False)

    def missing(self, digests: Sequence[str]) -> list[int]:
        """Return the positions of digests that have no row yet, the first of equal digests only."""
        self._look()
        seen: set[str] = set()
        out = []
        for i, one in enumerate(digests):
            if one not in self._places and one not in seen:
                out.append(i)
                seen.add(one)
        return out

    def append(self, digests: Sequence[str], rows: np.ndarray) -> None:
        """Write the rows (n, ...) of n digests as one shard.

        Raises
        ------
        InputError
            the disk is full or the folder cannot be written; nothing half-written is left in the way.
        """
        if len(digests) != len(rows):
            raise ValueError(f"{len(digests)} digests for {len(rows)} rows")
        if not len(rows):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._publish(_encoded(digests, np.ascontiguousarray(rows)))
        except OSError as error:
            raise InputError(_unwritable(self.folder, error)) from None

    def read(self, digests: Sequence[str]) -> np.ndarray:
        """Return the rows (n, ...) of those digests, in that order. Raises ``KeyError`` for a digest without a row."""
        self._look()
        places = [self._places[one] for one in digests]
        if not places:
            return np.zeros((0,))
        first = self._shards[places[0][0]].rows
        out = np.empty((len(places), *first.shape[1:]), dtype=np.result_type(*{self._shards[p].rows.dtype for p, _ in places}))
        by_shard: dict[Path, list[int]] = {}
        for i, (path, _) in enumerate(places):
            by_shard.setdefault(path, []).append(i)
        for path, positions in by_shard.items():
            out[positions] = self._shards[path].rows[[places[i][1] for i in positions]]
        return out

    def _publish(self, content: bytes) -> None:
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.folder / f"{hashlib.sha256(content).hexdigest()[:32]}{SUFFIX}")
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise

    def _look(self) -> None:
        """Take in shards that appeared since the last look; in sorted order, so that equal contents read equally."""
        try:
            names = sorted(name for name in os.listdir(self.folder) if name.endswith(SUFFIX))
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(_unwritable(self.folder, error)) from None
        for path in (self.folder / name for name in names):
            if path not in self._shards and (shard := _opened(path)) is not None:
                self._shards[path] = shard
                for i, one in enumerate(shard.digests):
                    self._places.setdefault(one, (path, i))


@dataclass(frozen=True)
class _Shard:
    digests: tuple[str, ...]
    rows: np.ndarray


def _encoded(digests: Sequence[str], rows: np.ndarray) -> bytes:
    """Lay a shard out: magic, length of the header, header with checksums, padding to 64 bytes, rows."""
    body = rows.tobytes()
    header = {"digests": list(digests), "dtype": rows.dtype.str, "shape": rows.shape, "sha256": hashlib.sha256(body).hexdigest()}
    text = json.dumps(header).encode()
    text = hashlib.sha256(text).hexdigest().encode() + text
    start = len(MAGIC) + 8 + len(text)
    return MAGIC + struct.pack("<Q", len(text)) + text + bytes(-start % ALIGN) + body


def _opened(path: Path) -> _Shard | None:
    """Map a shard; ``None`` when it is torn, damaged or foreign, so that its rows count as missing.

    The rows' checksum is verified once, on opening: it costs one pass over bytes that are about to be read anyway.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return None
            (length,) = struct.unpack("<Q", file.read(8))
            text = file.read(min(length, path.stat().st_size))
            start = file.tell() + (-file.tell() % ALIGN)
        if len(text) != length or hashlib.sha256(text[64:]).hexdigest().encode() != text[:64]:
            return None
        header = json.loads(text[64:])
        rows = np.memmap(path, mode="r", dtype=np.dtype(header["dtype"]), shape=tuple(header["shape"]), offset=start)
    except (OSError, struct.error, ValueError, KeyError):
        return None
    if len(header["digests"]) != len(rows) or hashlib.sha256(rows.data).hexdigest() != header["sha256"]:
        return None
    return _Shard(tuple(header["digests"]), rows)


def _unwritable(folder: Path, error: OSError) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        there = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(there).free / 2**20
        return f"{folder}: the disk is full ({free:.1f} MiB free). Free space and run the same command again; what is stored is kept."
    return f"{folder} cannot be used ({os.strerror(error.errno or 0)}). Give a folder that can be: set HEADSTART_CACHE."

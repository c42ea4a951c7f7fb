"""The activation store: what frozen stages produced, on disk, keyed by content, memory-mapped.

A *space* is everything that decides the numbers (weights, cut, preprocessing, engine, dtype, view, library versions); a row is one input's
digest. Rows come in shards: immutable files that appear whole or not at all, so a killed or a second writer can harm no reader.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import mmap
import os
import re
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core import InputError

MAGIC = b"HEADSTART1"
ALIGN = 64
SUFFIX = ".rows"
FIELDS_FILE = "fields.json"
LIMIT = 20 * 2**30  # bytes: about 200 sources on 2,000 images; a laptop has that to spare
PIECES = 1024  # of the limit: what one space may write before the store is trimmed again
STALE = 6 * 3600.0  # seconds after which a half-written file has no living writer
BFLOAT16 = "bfloat16"
BOUND = 2.0**-8  # of a row's largest magnitude; measured on a probe: float16 and bfloat16 change accuracy by 0.0 and 0.1 points


def default_root() -> Path:
    """Return where activations are kept: ``HEADSTART_CACHE``, else ``headstart`` under ``XDG_CACHE_HOME``, else under ``~/.cache``."""
    if os.environ.get("HEADSTART_CACHE"):
        return Path(os.environ["HEADSTART_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headstart"


def limit_bytes() -> int:
    """Return how many bytes the store may take: ``HEADSTART_CACHE_SIZE`` in GiB, else 20 GiB. Raises ``InputError`` for what is no number."""
    text = os.environ.get("HEADSTART_CACHE_SIZE", "")
    try:
        size = float(text) if text else LIMIT / 2**30
    except ValueError:
        size = -1.0
    if not size >= 0:
        raise InputError(f"HEADSTART_CACHE_SIZE is {text!r}; a number of GiB is needed, such as 20.")
    return int(size * 2**30)


@dataclass(frozen=True)
class Store:
    """A folder of spaces, bounded in size: where it outgrows ``limit``, the shards that were read or written longest ago go first.

    A reader that has a shard open keeps it: the file's content lives on until it is closed. One that finds it gone makes its rows anew.

    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> space = store.space({"weights": "ab", "cut": 3})
    >>> space.append(["x", "y"], np.eye(2, dtype=np.float32))
    >>> space.missing(["y", "z"])
    [1]
    >>> space.read(["y"]).tolist()
    [[0.0, 1.0]]
    """

    root: Path
    limit: int = field(default_factory=limit_bytes)

    def space(self, fields: Mapping[str, Any]) -> Space:
        """Return the space of those fields; equal fields, in any order, are the same space."""
        text = json.dumps(fields, sort_keys=True)
        return Space(self.root / hashlib.sha256(text.encode()).hexdigest()[:32], text, self.trim, self.limit // PIECES)

    def sizes(self) -> dict[str, int]:
        """Return the bytes of all shards, by source, or by view for what comes from no source."""
        out: dict[str, int] = {}
        for folder in self._folders():
            name = _named(folder)
            out[name] = out.get(name, 0) + sum(size for _, size, _ in _shards(folder))
        return out

    def clear(self) -> int:
        """Remove everything that the store wrote, and nothing else; return how many bytes that freed."""
        freed = 0
        for folder in self._folders():
            freed += sum(size for _, size, _ in _shards(folder))
            for path in [*folder.glob(f"*{SUFFIX}"), *folder.glob(".*.part"), folder / FIELDS_FILE]:
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()
        return freed

    def trim(self) -> None:
        """Remove the shards used longest ago until the rest fits, and half-written files whose writer is gone."""
        now = time.time()
        shards = []
        for folder in self._folders():
            shards += _shards(folder)
            for part in folder.glob(".*.part"):
                with contextlib.suppress(FileNotFoundError):
                    if now - part.stat().st_mtime > STALE:
                        part.unlink()
        over = sum(size for _, size, _ in shards) - self.limit
        for path, size, _ in sorted(shards, key=lambda one: (one[2], one[0])):
            if over <= 0:
                break
            path.unlink(missing_ok=True)
            over -= size

    def _folders(self) -> list[Path]:
        """The spaces' folders: of 32 hexadecimal digits, and holding nothing that is not the store's."""
        try:
            return sorted(p for p in self.root.iterdir() if p.is_dir() and re.fullmatch(r"[0-9a-f]{32}", p.name))
        except FileNotFoundError:
            return []


@dataclass
class Space:
    """Rows of one kind, by digest."""

    folder: Path
    fields: str
    trim: Callable[[], None] = field(default=lambda: None, repr=False)
    patience: int = 0  # bytes that may be appended between two trims, each of which looks at every shard of the store
    _places: dict[str, int] = field(default_factory=dict, repr=False)  # the row's number over all shards
    _shards: list[_Shard] = field(default_factory=list, repr=False)
    _names: set[str] = field(default_factory=set, repr=False)
    _untrimmed: int = field(default=0, repr=False)

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

    def append(self, digests: Sequence[str], rows: np.ndarray, *, bound: float | None = None) -> None:
        """Write the rows (n, ...) of n digests as one shard; with a ``bound``, in the dtype that :func:`narrowed` chooses for them.

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
            if not (self.folder / FIELDS_FILE).exists():
                self._publish(self.fields.encode(), FIELDS_FILE)
            stored, kind = (rows, "") if bound is None else narrowed(np.asarray(rows, dtype=np.float32), bound=bound)
            content = _encoded(digests, np.ascontiguousarray(stored), kind)
            self._publish(content, f"{hashlib.sha256(content).hexdigest()[:32]}{SUFFIX}")
            self._untrimmed += len(content)
            if self._untrimmed > self.patience:
                self.trim()
                self._untrimmed = 0
        except OSError as error:
            raise InputError(_unwritable(self.folder, error)) from None

    def read(self, digests: Sequence[str]) -> np.ndarray:
        """Return the rows (n, ...) of those digests, in that order. Raises ``KeyError`` for a digest without a row."""
        return np.asarray(self.rows(digests))

    def rows(self, digests: Sequence[str]) -> Rows:
        """Return the same without reading them yet: what is too large to hold is indexed from disk."""
        self._look()
        return Rows(tuple(self._shards), np.fromiter((self._places[one] for one in digests), dtype=np.int64, count=len(digests)))

    def _publish(self, content: bytes, final: str) -> None:
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.folder / final)
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
        for name in (name for name in names if name not in self._names):
            if (shard := opened(self.folder / name)) is None:
                continue
            with contextlib.suppress(OSError):
                os.utime(self.folder / name)  # why: what was used last goes last, also where the disk keeps no access times
            start = self._shards[-1].start + len(self._shards[-1]) if self._shards else 0
            self._names.add(name)
            self._shards.append(dataclasses.replace(shard, start=start))
            for i, one in enumerate(shard.digests, start):
                self._places.setdefault(one, i)


@dataclass(frozen=True)
class _Shard:
    digests: tuple[str, ...]
    rows: np.ndarray
    kind: str = ""
    start: int = 0

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that rows have when they are read."""
        return np.dtype(np.float32) if self.kind == BFLOAT16 else self.rows.dtype

    def take(self, which: np.ndarray) -> np.ndarray:
        """Return copies of those rows; where they are all, the pages that they were read from are given back."""
        rows = self.rows[which]
        if len(which) >= len(self) and (pages := getattr(self.rows, "_mmap", None)) is not None and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)  # why: a whole space that is read once would be resident twice
        return np.asarray((rows.astype(np.uint32) << 16).view(np.float32) if self.kind == BFLOAT16 else rows)


@dataclass(frozen=True)
class Rows:
    """Rows of a space, read from disk when they are indexed to the end: ``rows[numbers]`` is again rows, and ``np.asarray`` of it an array.

    Training gathers a batch at a time from the memory map; nothing else is held.
    """

    shards: tuple[_Shard, ...]
    places: np.ndarray  # (n,) numbers of rows over all shards

    def __len__(self) -> int:
        return len(self.places)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The widest dtype of the shards that rows lie in."""
        held = np.unique(self._shard_of(self.places))
        return np.result_type(*{self.shards[i].dtype for i in held}) if len(held) else np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...)"""
        return (len(self.places), *self.shards[0].rows.shape[1:]) if self.shards else (0,)

    def __getitem__(self, which: Any) -> Rows:
        return Rows(self.shards, np.atleast_1d(self.places[which]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if not len(self.places):
            return np.zeros(self.shape, dtype=dtype or self.dtype)
        out = np.empty(self.shape, dtype=dtype or self.dtype)
        of = self._shard_of(self.places)
        for i in np.unique(of):
            positions = np.flatnonzero(of == i)
            out[positions] = self.shards[i].take(self.places[positions] - self.shards[i].start)
        return out

    def _shard_of(self, places: np.ndarray) -> np.ndarray:
        return np.searchsorted([shard.start for shard in self.shards], places, side="right") - 1


def narrowed(rows: np.ndarray, *, bound: float = BOUND) -> tuple[np.ndarray, str]:
    """Return float32 rows (n, ...) in the narrowest of float16, bfloat16 and float32 that errs by no more than ``bound``, and its name.

    The error is the largest difference in a row, divided by the row's largest magnitude: 2^-11 for float16 within its range (65,504 and down to
    6e-8), 2^-9 for bfloat16, which has float32's range. float16 is preferred; where a value overflows it, bfloat16 is tried.

    >>> [narrowed(np.array([[1.0, v]], dtype=np.float32))[1] for v in (3.0, 1e6)]
    ['float16', 'bfloat16']
    """
    scale = np.abs(rows.reshape(len(rows), -1)).max(axis=1)
    with np.errstate(over="ignore"):
        half = rows.astype(np.float16)
    if _error(rows, half.astype(np.float32), scale) <= bound:
        return half, "float16"
    bits = rows.astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to the nearest, ties to even
    if _error(rows, (rounded.astype(np.uint32) << 16).view(np.float32), scale) <= bound:
        return rounded, BFLOAT16
    return rows.astype(np.float32), "float32"


def _error(rows: np.ndarray, stored: np.ndarray, scale: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):
        gap = np.abs(rows - stored).reshape(len(rows), -1).max(axis=1)
    worst = np.where(scale > 0, gap / np.where(scale > 0, scale, 1.0), gap)
    return float(worst.max()) if np.isfinite(worst).all() else float("inf")


def _shards(folder: Path) -> list[tuple[Path, int, float]]:
    """Path, size and time of last use of each shard that is still there."""
    out = []
    for path in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            out.append((path, about.st_size, about.st_mtime))
    return out


def _named(folder: Path) -> str:
    try:
        fields = json.loads((folder / FIELDS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "unknown"
    return str(fields.get("source") or fields.get("view") or "unknown")


def _encoded(digests: Sequence[str], rows: np.ndarray, kind: str) -> bytes:
    """Lay a shard out: magic, length of the header, header with checksums, padding to 64 bytes, rows."""
    body = rows.tobytes()
    header = {"digests": list(digests), "dtype": rows.dtype.str, "kind": kind, "shape": rows.shape, "sha256": hashlib.sha256(body).hexdigest()}
    text = json.dumps(header).encode()
    text = hashlib.sha256(text).hexdigest().encode() + text
    start = len(MAGIC) + 8 + len(text)
    return MAGIC + struct.pack("<Q", len(text)) + text + bytes(-start % ALIGN) + body


def opened(path: Path) -> _Shard | None:
    """Map a shard; ``None`` when it is torn, damaged or foreign, so that its rows count as missing.

    The rows' checksum is verified once, on opening, in pieces: it costs one pass over bytes that are about to be read anyway, and no memory.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return None
            (length,) = struct.unpack("<Q", file.read(8))
            text = file.read(min(length, path.stat().st_size))
            if len(text) != length or hashlib.sha256(text[64:]).hexdigest().encode() != text[:64]:
                return None
            header = json.loads(text[64:])
            start = file.tell() + (-file.tell() % ALIGN)
            file.seek(start)
            if hashlib.file_digest(file, "sha256").hexdigest() != header["sha256"]:
                return None
        rows = np.memmap(path, mode="r", dtype=np.dtype(header["dtype"]), shape=tuple(header["shape"]), offset=start)
    except OSError as error:
        if error.errno != errno.EMFILE:
            return None
        _allow_more_files(path)
        return opened(path)
    except (struct.error, ValueError, KeyError, TypeError):
        return None
    # why interned: every cut has a space of its own, and all name the same inputs
    return _Shard(tuple(map(sys.intern, header["digests"])), rows, header.get("kind", "")) if len(header["digests"]) == len(rows) else None


def _allow_more_files(path: Path) -> None:
    """Raise this process's own limit of open files to what the system lets it have: each shard that is mapped holds one."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        raise InputError(f"{path} cannot be opened: this process may hold no more than {soft} files. Allow it more, such as: ulimit -n 65536.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _unwritable(folder: Path, error: OSError) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        there = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(there).free / 2**20
        return f"{folder}: the disk is full ({free:.1f} MiB free). Free space and run the same command again; what is stored is kept."
    return f"{folder} cannot be used ({os.strerror(error.errno or 0)}). Give a folder that can be: set HEADSTART_CACHE."

"""The ledger of folds: what was computed, on disk, once, whichever of several processes made it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import BaseFileLock, FileLock, Timeout


class Busy(RuntimeError):
    """Another process is at work on what was asked for."""


@dataclass(frozen=True)
class Ledger:
    """Finished folds on disk: an atomic file each, named by the hash of everything that determines it.

    Whoever makes one holds its lock, which the system gives back when a process dies; locks lie in a folder beside, see :attr:`locks`.
    """

    folder: Path

    @property
    def locks(self) -> Path:
        """The folder of the locks; nothing in it is worth keeping."""
        return self.folder.with_name(f"{self.folder.name}.locks")

    def outcome(self, key: Mapping[str, Any], make: Callable[[], np.ndarray], *, patience: float = -1.0) -> tuple[np.ndarray, float]:
        """Return the stored probabilities and the seconds they took, or make and store them.

        Raises ``Busy`` where another process is at work on them and has not finished within ``patience`` seconds; a negative one waits as long as it takes.
        """
        if (stored := self.stored(key)) is not None:
            return stored
        try:
            with self.lock(key, timeout=patience):
                if (stored := self.stored(key)) is not None:
                    return stored
                began = time.monotonic()
                proba = make()
                return self.keep(key, proba, time.monotonic() - began)
        except Timeout:
            raise Busy from None

    def stored(self, key: Mapping[str, Any]) -> tuple[np.ndarray, float] | None:
        """Return what :meth:`outcome` does where it is stored, else ``None``."""
        return _stored(self._path(key))

    def lock(self, key: Mapping[str, Any], *, timeout: float = -1.0, thread_local: bool = True) -> BaseFileLock:
        """Return the lock of whoever makes that fold, not yet acquired."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.locks.mkdir(exist_ok=True)
        return FileLock(self.locks / self._path(key).stem, timeout=timeout, thread_local=thread_local)

    def keep(self, key: Mapping[str, Any], proba: np.ndarray, seconds: float) -> tuple[np.ndarray, float]:
        """Store a fold's probabilities and the seconds they took, whole or not at all; return both."""
        path = self._path(key)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with scratch.open("wb") as file:
                np.savez(file, proba=proba, seconds=seconds)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
        return proba, seconds

    def _path(self, key: Mapping[str, Any]) -> Path:
        return self.folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]}.npz"

    def seconds(self) -> float:
        """Seconds that went into everything stored here."""
        return sum(stored[1] for path in sorted(self.folder.glob("*.npz")) if (stored := _stored(path)) is not None)


def _stored(path: Path) -> tuple[np.ndarray, float] | None:
    """Read a finished fold; ``None`` when it is absent or damaged, so that it is made again."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            return stored["proba"], float(stored["seconds"])
    except (OSError, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error):
        return None

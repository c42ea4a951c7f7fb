"""Downloads: shown, resumed where they stopped (also by another run), and checked against a hash before anything has the final name."""

from __future__ import annotations

import hashlib
import http.client
import os
import queue
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from headstart.core import InputError

CHUNK = 2**18  # bytes; small enough that the bar moves and little is lost when the connection breaks
WAIT = 20.0  # seconds without a byte until a connection counts as broken
TRIES = 5  # connections in a row that bring nothing
PROBE = 2.0  # seconds that a hub has to accept a connection; names included, since a resolver without network may wait for half a minute
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Remote:
    """A file elsewhere and what is known of it: ``digest`` is a SHA-256 or its beginning, or, of 40 digits, git's SHA-1; "" is not checked."""

    url: str
    digest: str = ""
    size: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    title: str = ""


def why_offline(url: str) -> str | None:
    """Return why nothing can be fetched from there, or ``None`` when something can; this takes two seconds at most.

    ``HF_HUB_OFFLINE`` and ``TRANSFORMERS_OFFLINE``, set to anything but 0, stand for no network. Where a proxy is set, it is asked instead.
    """
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "0").lower() not in {"", "0", "false", "no", "off"}:
            return f"{variable} is set"
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(parts.scheme)
    door = urlsplit(proxy if "//" in (proxy or "//") else f"//{proxy}") if proxy else parts
    port = door.port or (443 if door.scheme == "https" else 80)
    return None if _answers(door.hostname or "", port) else "its hub cannot be reached"


def fetch(remote: Remote, to: Path, *, lock: Path | None = None, progress: Progress | None = None) -> Path:
    """Fetch a file to a path, whole and checked, and return the path.

    What a broken or killed download left behind (``NAME.part``) is continued. ``lock`` is the file that keeps two processes apart, by default
    ``.locks/NAME.lock`` beside it. ``progress`` is called with the bytes that are there and the
    bytes there will be; ``None`` draws a bar on standard error.

    Raises
    ------
    InputError
        the server refuses, or the connection breaks again and again (what came is kept for the next run); the file is not the one that was
        asked for (nothing is kept).
    """
    from filelock import FileLock

    if to.exists():
        return to
    part, lock = to.with_name(f"{to.name}.part"), lock or to.parent / ".locks" / f"{to.name}.lock"
    try:
        for folder in (to.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):  # why: two processes that continue one part would mix their bytes
            if not to.exists():
                with _shown(remote.title or to.name) if progress is None else nullcontext(progress) as tell:
                    _complete(remote, part, tell)
                _check(remote, part)
                os.replace(part, to)
    except OSError as error:
        raise InputError(f"{to} cannot be written ({error.strerror or error}). Free space and rights there, and run the same command again.") from None
    return to


def _complete(remote: Remote, part: Path, tell: Progress) -> None:
    """Add to the part until it is as long as the server says; a connection that brings nothing is tried again, a few times."""
    failures = 0
    total: int | None
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            total = _append(remote, part, before, tell)
            reason = "the connection was closed"
        except urllib.error.HTTPError as error:
            raise InputError(f"{remote.url} answers {error.code} {error.reason}. Check the name, and that you may read it.") from None
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            total, reason = remote.size, str(getattr(error, "reason", error) or type(error).__name__)
        there = part.stat().st_size if part.exists() else 0
        if total is not None and there >= total:
            return
        failures = 0 if there > before else failures + 1
        if failures >= TRIES:
            of = f" of {total / 1e6:.1f}" if total else ""
            raise InputError(f"The download of {remote.url} stopped at {there / 1e6:.1f}{of} MB ({reason}). Run the same command again: it goes on from there.")
        time.sleep(0.2 * failures)


def _append(remote: Remote, part: Path, start: int, tell: Progress) -> int:
    """Read on from ``start`` until the connection ends, and return how long the whole file is."""
    if remote.size is not None and start == remote.size:
        part.touch()
        return start
    headers = {"User-Agent": "headstart", **remote.headers} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(remote.url, headers=headers), timeout=WAIT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        if str(error.headers.get("Content-Range", "")).endswith(f"/{start}"):
            return start  # why: the last run was killed between the last byte and the check
        part.unlink()  # why: what is here is longer than the file there, so it is a part of something else
        return _append(remote, part, 0, tell)
    with answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0
        length = answer.headers.get("Content-Length")
        total = remote.size if length is None else start + int(length)
        with part.open("ab" if start else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                tell(file.tell(), total)
            os.fsync(file.fileno())  # why: a file must not have its final name before its bytes are on the disk
            return file.tell() if total is None else total


def _check(remote: Remote, part: Path) -> None:
    if not remote.digest:
        return
    found = _git_sha1(part) if len(remote.digest) == 40 else sha256(part)
    if not found.startswith(remote.digest.lower()):
        part.unlink()
        raise InputError(
            f"{remote.url} is not the file that was expected: its hash begins with {found[:8]}, not with {remote.digest[:8]}. Nothing was kept. "
            "Try again; if it stays so, do not use that server."
        )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_sha1(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _answers(host: str, port: int) -> bool:
    answers: queue.Queue[bool] = queue.Queue()

    def knock() -> None:
        try:
            socket.create_connection((host, port), timeout=PROBE).close()
        except OSError:
            answers.put(False)
        else:
            answers.put(True)

    threading.Thread(target=knock, daemon=True).start()  # why: the look-up of a name has no time limit of its own
    try:
        return answers.get(timeout=PROBE)
    except queue.Empty:
        return False


@contextmanager
def _shown(name: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(20), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task(name, total=None)

        def tell(there: int, total: int | None) -> None:
            bar.update(task, completed=there, total=total)

        yield tell

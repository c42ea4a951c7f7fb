"""Names of hubs: ``timm:resnet50.a1_in1k``, ``torchvision:VGG16_Weights.IMAGENET1K_V1``, ``hf:bert-base-uncased``, downloaded once.

What is already on this machine is never asked for again; offline, a name that is not here is answered at once.
"""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from headstart.core import Backbone, InputError, Source
from headstart.modality import families, weights

HUBS = ("timm", "torchvision", "hf")
PATIENCE = 3.0  # seconds to find out that there is no network; a hub's own client retries for half a minute
CHUNK = 2**20
TEXT_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "1_Pooling/*")


def from_hub(name: str) -> Source:
    """Return the source of ``hub:name``, or of ``hub:architecture@file``. Raises ``InputError``; see ``sources.get``."""
    hub, _, rest = name.partition(":")
    if hub not in HUBS or not rest:
        raise InputError(f"{name!r} names no hub. Write timm:ARCHITECTURE, torchvision:WEIGHTS or hf:REPOSITORY, and @FILE behind it for weights of your own.")
    architecture, _, file = rest.partition("@")
    if hub == "hf":
        return _text(name, Path(file) if file else _repository(architecture))
    if file:
        return vision_source(name, hub, architecture, Path(file), trained_on=f"as {file} was")
    return _published(name, hub, architecture)


def vision_source(name: str, library: str, architecture: str, file: Path, *, trained_on: str, licence: str = "ask who made it") -> Source:
    """Return the source of an architecture with weights from a file; the weights are read at once, so that what does not fit is said at once."""
    state = weights.read_state(file)
    body = families.build(library, architecture, state=state)
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    whole = body.classifier is not None and getattr(body.classifier, "out_features", 0) == 1000
    return Source(
        name=name,
        family=architecture.split(".")[0],
        parameters=sum(p.numel() for p in body.stages.parameters()),
        dim=body.dim,
        stages=body.cuts[1:],
        trained_on=trained_on,
        licence=licence,
        origin=str(file),
        tune_cuts=families.tune_cuts(len(body.stages)),
        opener=lambda: body,
        digest=lambda: sha256,
        labels=families.labels(library, architecture) if whole else (),
        recipe={"library": library, "architecture": architecture, **_classes(body)},
    )


def download(url: str, path: Path, *, sha256_prefix: str, progress: Callable[[int, int], None] | None = None) -> Path:
    """Fetch a file, going on where an interrupted fetch stopped, and keep it only where its SHA-256 begins with the prefix.

    Raises
    ------
    InputError
        the address cannot be read, or the content is another; then nothing is left.
    """
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            have = have if answer.status == 206 else 0  # why: a server that knows no ranges sends the whole again
            total = have + int(answer.headers.get("Content-Length", 0))
            with part.open("ab" if have else "wb") as file:
                while chunk := answer.read(CHUNK):
                    have += file.write(chunk)
                    if progress is not None:
                        progress(have, total)
        if have < total:
            raise OSError("the connection broke off")
    except (urllib.error.URLError, OSError) as error:
        kept = f"; {have / 2**20:.1f} MiB are kept, and the same command goes on from there" if have else ""
        raise InputError(f"{url} cannot be fetched ({getattr(error, 'reason', error)}){kept}.") from None
    with part.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if not found.startswith(sha256_prefix):
        part.unlink()
        raise InputError(f"{url} is not what it should be: its SHA-256 begins with {found[:8]}, not {sha256_prefix}. Nothing was kept; try again later.")
    os.replace(part, path)
    return path


def _published(name: str, library: str, wanted: str) -> Source:
    found = families.published(library, wanted)
    file = _hub_file(name, found.repository, "model.safetensors") if found.repository else _fetched(name, found.url)
    return vision_source(name, library, found.architecture, file, trained_on=found.trained_on, licence=found.licence)


def _fetched(name: str, url: str) -> Path:
    """Return the local copy of a file whose name ends in the beginning of its SHA-256, as PyTorch's own hub keeps it."""
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.exists():
        _require_network(name, url)
        with _Bar(name) as progress:
            download(url, path, sha256_prefix=path.stem.rsplit("-", 1)[1], progress=progress)
    return path


def _text(name: str, folder: Path) -> Source:
    from headstart.sources.files import text_source

    return text_source(name, folder)


def _repository(repository: str) -> Path:
    """Return the local copy of a repository, fetched where it is not here."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    name = f"hf:{repository}"
    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(TEXT_FILES), local_files_only=True))
    except (LocalEntryNotFoundError, FileNotFoundError):
        _require_network(name, huggingface_hub.constants.ENDPOINT)
    except ValueError as error:
        raise InputError(f"{name}: {str(error).splitlines()[0]}") from None
    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(TEXT_FILES)))
    except (RepositoryNotFoundError, HfHubHTTPError, OSError) as error:
        raise InputError(f"{name} cannot be fetched ({str(error).splitlines()[0]}). Check the name, or give a local folder.") from None


def _hub_file(name: str, repository: str, file: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    cached = huggingface_hub.try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached)
    _require_network(name, huggingface_hub.constants.ENDPOINT)
    try:
        return Path(huggingface_hub.hf_hub_download(repository, file))
    except (HfHubHTTPError, OSError) as error:
        raise InputError(f"{name} cannot be fetched ({str(error).splitlines()[0]}). Check the name, or give a file: {name.split('.')[0]}@FILE.") from None


def _require_network(name: str, url: str) -> None:
    """Answer at once where there is no network."""
    asked = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
    if asked or not _reachable(url):
        why = "HF_HUB_OFFLINE is set" if asked else "its hub cannot be reached"
        local = "a local folder" if name.startswith("hf:") else f"a file of weights: {name.split('.')[0]}@FILE"
        raise InputError(f"{name} is not on this machine, and {why}. Connect once to fetch it, or give {local}.")


def _reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
            return True
    except urllib.error.HTTPError:
        return True  # why: it answered
    except (urllib.error.URLError, OSError, ValueError):
        return False


class _Bar:
    """A progress bar of bytes on the terminal."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Callable[[int, int], None]:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        self.bars = Progress(TextColumn("{task.description}"), BarColumn(20), DownloadColumn(), TimeRemainingColumn(), transient=True)
        task = self.bars.add_task(self.name, total=None)
        self.bars.start()
        return lambda have, total: self.bars.update(task, completed=have, total=total or None)

    def __exit__(self, *error: object) -> None:
        self.bars.stop()


def _classes(body: Backbone) -> dict[str, int]:
    classes = getattr(body.classifier, "out_features", 1000)
    return {} if classes == 1000 else {"num_classes": int(classes)}

"""Names of hubs: ``timm:resnet50.a1_in1k``, ``torchvision:VGG16_Weights.IMAGENET1K_V1``, ``hf:bert-base-uncased``, downloaded once.

What is already on this machine, in the caches of huggingface_hub and torch.hub, is never asked for again; offline, a name that is not there is
answered at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from headstart.core import InputError, Preprocess, Source
from headstart.modality import families
from headstart.sources.download import Remote, fetch, why_offline
from headstart.sources.files import folder_source, vision_source

HUBS = ("timm", "torchvision", "hf")
MAIN = "main"
TEXT_FILES = re.compile(r"[\w.-]+\.(json|txt|model)|\d_\w+/config\.json")  # at the top of a repository, and the pooling; other formats lie in folders
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors|pytorch_model(-\d+-of-\d+)?\.bin")


def is_hub(name: str) -> bool:
    """Whether a name begins with a hub's, or has the form of an architecture with a file."""
    return ":" in name or "@" in name


def lies_at(name: str) -> Path | None:
    """Return where the weights of a hub's name lie on this machine, or ``None``; nothing is asked of the network. Raises ``InputError``."""
    library, architecture, behind = _parts(name)
    if library == "hf":
        return _whole_folder(architecture, behind or MAIN)
    if behind:
        return Path(behind) if Path(behind).exists() else None
    found = families.published(library, architecture)
    path = _cached(found.repository, "model.safetensors", MAIN) if found.repository else _checkpoint(found.url)
    return path if path is not None and path.exists() else None


def from_hub(name: str, *, preprocess: Preprocess | None = None) -> Source:
    """Return the source of ``hub:name``, of ``hub:architecture@file``, or of ``hf:repository@revision``. Raises ``InputError``; see ``sources.get``."""
    hub, architecture, file = _parts(name)
    if hub == "hf":
        return folder_source(name, _repository(name, architecture, file or MAIN))
    if file:
        return vision_source(name, hub, architecture, Path(file), trained_on=f"as {file} was", preprocess=preprocess)
    return _published(name, hub, architecture, preprocess)


def _parts(name: str) -> tuple[str, str, str]:
    """Return the hub, what it is asked for, and what stands behind "@"."""
    hub, _, rest = name.partition(":")
    if hub not in HUBS or not rest:
        hint = "Write timm:ARCHITECTURE, torchvision:WEIGHTS or hf:REPOSITORY, with @FILE behind an architecture for weights of your own."
        raise InputError(f"{name!r} names no hub. {hint}")
    architecture, _, behind = rest.partition("@")
    return hub, architecture, behind


def _published(name: str, library: str, wanted: str, preprocess: Preprocess | None) -> Source:
    found = families.published(library, wanted)
    file = _hub_file(name, found.repository, "model.safetensors") if found.repository else _fetched(name, found.url)
    return vision_source(name, library, found.architecture, file, trained_on=found.trained_on, licence=found.licence, preprocess=preprocess)


def _fetched(name: str, url: str) -> Path:
    """Return the local copy of a file whose name ends in the beginning of its SHA-256, as PyTorch's own hub keeps it."""
    path = _checkpoint(url)
    if not path.exists():
        _require_network(name, url)
        fetch(Remote(url, digest=path.stem.rsplit("-", 1)[1]), path)
    return path


def _checkpoint(url: str) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]


def _repository(name: str, repository: str, revision: str) -> Path:
    """Return the local folder of a repository's configuration, tokenizer and weights, fetched where it is not here whole."""
    here = _whole_folder(repository, revision)
    if here is not None:
        return here
    _require_network(name, _endpoint())
    with _explained(name):
        wanted = _wanted(name, _names(repository, revision))
        return [_into_cache(repository, file, revision) for file in wanted][-1].parent


def _whole_folder(repository: str, revision: str) -> Path | None:
    config = _cached(repository, "config.json", revision)
    # why: a tool that only wanted the tokenizer leaves a folder without weights
    return config.parent if config is not None and any(WEIGHTS.fullmatch(path.name) for path in config.parent.iterdir()) else None


def _wanted(name: str, files: Sequence[str]) -> list[str]:
    """Return which of a repository's files make a network: weights in safetensors, else in PyTorch's format; configuration last, as a seal."""
    safe = [file for file in files if WEIGHTS.fullmatch(file) and file.endswith(".safetensors")]
    loose = [file for file in files if WEIGHTS.fullmatch(file) and not file.endswith(".safetensors")]
    if "config.json" not in files or not (safe or loose):
        raise InputError(f"{name} holds no config.json with weights in safetensors. Choose another repository, or give a local folder.")
    return [*(file for file in files if TEXT_FILES.fullmatch(file) and file != "config.json"), *(safe or loose), "config.json"]


def _names(repository: str, revision: str) -> list[str]:
    from huggingface_hub import HfApi

    about = HfApi(endpoint=_endpoint()).model_info(repository, revision=revision)
    return [one.rfilename for one in about.siblings or ()]


def _hub_file(name: str, repository: str, file: str) -> Path:
    """Return the local copy of one file of a repository, fetched where it is not here."""
    here = _cached(repository, file, MAIN)
    if here is not None:
        return here
    _require_network(name, _endpoint())
    with _explained(name):
        return _into_cache(repository, file, MAIN)


def _cached(repository: str, file: str, revision: str) -> Path | None:
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, file, cache_dir=constants.HF_HUB_CACHE, revision=revision)
    except HFValidationError:
        raise InputError(f"{repository!r} is no name of a repository. Write hf:OWNER/NAME, or hf:OWNER/NAME@REVISION.") from None
    return Path(found) if isinstance(found, str) else None


def _into_cache(repository: str, file: str, revision: str) -> Path:
    """Fetch a file's bytes ourselves, resumable and checked against its hash, and let huggingface_hub give them their name in its cache.

    why not its own download alone: since version 2 it throws away what a broken connection brought, and it compares sizes but no hashes.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = hf_hub_url(repository, file, revision=revision, endpoint=_endpoint())
    said = get_hf_file_metadata(url, endpoint=_endpoint())
    if said.etag is None:
        raise InputError(f"{url} comes without a hash, so it cannot be checked. Fetch it by hand, and give the file.")
    is_ours = urlsplit(said.location).netloc == urlsplit(_endpoint()).netloc
    headers = build_hf_headers() if is_ours else {}  # why: the user's token is for the hub, not for the server that the hub points to
    cache, folder = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=repository, repo_type="model")
    remote = Remote(said.location, digest=said.etag, size=said.size, headers=headers, title=file)
    fetch(remote, cache / folder / "blobs" / said.etag, lock=cache / ".locks" / folder / f"{said.etag}.lock")  # why: the lock that its own tools take
    return Path(hf_hub_download(repository, file, revision=revision, endpoint=_endpoint(), cache_dir=constants.HF_HUB_CACHE))


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what a hub answers into one line."""
    from huggingface_hub import errors

    transport: Any = getattr(errors, "HTTPError", OSError)  # why: which client raises it, httpx or another, changes with the version
    try:
        yield
    except errors.GatedRepoError:
        raise InputError(f"{name} is given to those only who agreed to its terms. Agree on its page, and log in: hf auth login") from None
    except errors.RepositoryNotFoundError:
        raise InputError(f"The hub has no {name}, or does not show it to you. Check the name; for a private one log in: hf auth login") from None
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise InputError(f"{name} is not on the hub in this revision or form ({_line(error)}). Check the name, or give a local folder or file.") from None
    except (errors.HfHubHTTPError, errors.FileMetadataError, transport) as error:
        raise InputError(f"{name} cannot be fetched ({_line(error)}). Try again later, or give a local folder or file.") from None


def _require_network(name: str, url: str) -> None:
    """Answer at once where there is no network."""
    why = why_offline(url)
    if why is not None:
        local = "a local folder" if name.startswith("hf:") else f"a file of weights: {name.split(':')[0]}:ARCHITECTURE@FILE"
        raise InputError(f"{name} is not on this machine, and {why}. Connect once to fetch it, or give {local}.")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__

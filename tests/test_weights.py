"""Weights from files: what fits, what does not, and that no file runs code."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from headstart import sources
from headstart.core import InputError
from headstart.modality import families, weights


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in families._made("timm", "resnet18", None).state_dict().items()}


def test_every_wrapping_of_a_checkpoint_gives_the_same_network(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    prefixed = {f"module.{k}": v for k, v in state.items()}
    wrapped: dict[str, Any] = {"a.pt": state, "b.pth": {"state_dict": prefixed, "epoch": 3}, "c.pt": {"model": {"state_dict": state}}}
    for name, content in wrapped.items():
        torch.save(content, tmp_path / name)
    save_file(state, tmp_path / "d.safetensors")
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    outs = []
    for name in (*wrapped, "d.safetensors"):
        source = sources.get(f"timm:resnet18@{tmp_path / name}")
        assert source.backbone.loaded.whole
        with torch.inference_mode():
            outs.append(source.backbone(x))
    assert all(torch.equal(out, outs[0]) for out in outs)


def test_a_checkpoint_with_another_head_keeps_the_body_and_drops_the_classifier(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({**state, "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}, tmp_path / "seven.pt")
    source = sources.get(f"timm:resnet18@{tmp_path / 'seven.pt'}")
    assert source.backbone.classifier is None
    assert source.labels == ()
    assert str(source.backbone.loaded) == "100.0% of the body's weights found; of another shape: fc.weight, fc.bias"


def test_what_is_missing_is_named_and_too_little_is_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    most = {k: v for k, v in state.items() if not k.startswith("bn1.")}
    torch.save(most, tmp_path / "most.pt")
    account = sources.get(f"timm:resnet18@{tmp_path / 'most.pt'}").backbone.loaded
    assert account.missing[:2] == ("bn1.weight", "bn1.bias")
    assert 0.99 < account.share < 1.0
    torch.save({k: v for k, v in state.items() if not k.startswith("layer4")}, tmp_path / "less.pt")
    with pytest.raises(InputError) as caught:
        sources.get(f"timm:resnet18@{tmp_path / 'less.pt'}")
    text = str(caught.value)
    assert text.startswith("The weights do not fit timm:resnet18: 24.9% of the body's weights found; missing: layer4.0.conv1.weight,")
    assert text.endswith("At least 90% must. Name the architecture that they were trained with.")


def test_a_best_score_that_a_trainer_keeps_as_a_tensor_does_not_hide_the_weights(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"epoch": 3, "best_acc1": torch.tensor(70.0), "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "checkpoint.pth")
    assert set(weights.read_state(tmp_path / "checkpoint.pth")) == {f"module.{k}" for k in state}


def test_of_plain_and_averaged_weights_the_averaged_are_read(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "state_dict_ema": {"a": torch.ones(1)}}, tmp_path / "both.pth")
    assert weights.read_state(tmp_path / "both.pth") == {"a": torch.ones(1)}


def test_of_two_encoders_that_fit_equally_the_first_in_the_file_is_taken(state: dict[str, torch.Tensor]) -> None:
    for first, second in (("encoder_q.", "encoder_k."), ("encoder_k.", "encoder_q.")):
        both = {**{first + k: v for k, v in state.items()}, **{second + k: v + 1 for k, v in state.items()}}
        fits, account = weights.match(both, state, classifier="fc")
        assert (account.prefix, account.whole) == (first, True)
        assert torch.equal(fits["conv1.weight"], state["conv1.weight"])
        assert set(account.unexpected) == {second + k for k in state}


def test_wrappings_are_found_on_either_side(state: dict[str, torch.Tensor]) -> None:
    for theirs, ours in (("module.backbone.", ""), ("", "model."), ("_orig_mod.", "net.body.")):
        own = {ours + k: torch.zeros_like(v) for k, v in state.items()}
        fits, account = weights.match({theirs + k: v for k, v in state.items()}, own, classifier=f"{ours}fc")
        assert (account.prefix, account.added, account.share, account.missing, account.unexpected) == (theirs, ours, 1.0, (), ())
        assert all(torch.equal(fits[ours + k], v) for k, v in state.items())


def test_counters_of_batches_are_not_missed(state: dict[str, torch.Tensor]) -> None:
    _, account = weights.match({k: v for k, v in state.items() if "num_batches" not in k}, state, classifier="fc")
    assert str(account) == "100.0% of the body's weights found"


def test_what_a_checkpoint_asks_for_is_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "args": argparse.Namespace(rate=1)}, tmp_path / "trainer.pth")
    with pytest.raises(InputError, match=r"without running code \(it asks for argparse.Namespace\). Save them as .safetensors, or as a plain state_dict.$"):
        weights.read_state(tmp_path / "trainer.pth")


class Malice:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("wrap", ["pickle", "torch", "zip"])
def test_a_pickle_that_runs_code_is_refused_and_runs_none(wrap: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "weights.pt"
    if wrap == "pickle":
        path.write_bytes(pickle.dumps({"a": Malice(marker)}))
    elif wrap == "torch":
        torch.save({"a": Malice(marker)}, path)
    else:
        torch.save({"a": torch.zeros(1)}, path)
        with zipfile.ZipFile(path) as old:
            parts = {name: old.read(name) for name in old.namelist()}
        with zipfile.ZipFile(path, "w") as new:
            for name, content in parts.items():
                new.writestr(name, pickle.dumps({"a": Malice(marker)}) if name.endswith("data.pkl") else content)
    with pytest.raises(InputError, match="does not hold weights that can be read without running code"):
        sources.get(f"timm:resnet18@{path}")
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_damaged_files_are_refused_in_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"does not hold weights that can be read|holds no tensors by name"):
        weights.read_state(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("w.pkl", "w.pkl is a pickle: reading it would run whatever code is in it. Save the weights as .safetensors."),
        (
            "w.pt",
            "w.pt holds weights, not an architecture. Name both, such as timm:resnet50@w.pt; for a module of your own: sources.from_module(..., weights=FILE).",
        ),
        ("timm:resnet18@none.pt", "none.pt is not a file. Give a file of weights: .safetensors, .pt or .pth."),
        ("timm:", "'timm:' names no hub. Write timm:ARCHITECTURE,"),
        ("none.onnx", "none.onnx is not a file. Give an ONNX file."),
    ],
)
def test_a_name_that_is_no_source_says_what_is_missing(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        sources.get(name)
    assert str(caught.value).startswith(message)

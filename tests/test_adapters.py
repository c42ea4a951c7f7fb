"""Adapters: what is merged against arithmetic written out, how many numbers learn, which layers are taken, and that nothing else of the source moves."""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.contract_method import check_method, tiny_source
from headstart.core import Backbone, ColumnInput, InputError, Net, Preprocess, Source
from headstart.freezing import learners
from headstart.methods import HRA, IA3, DoRA, LoHa, LoKr, LoRA, RsLoRA, tuners
from headstart.methods.model.adapters import Adapter, merged
from headstart.methods.needs import require
from headstart.modality.language import from_config
from headstart.train import fit, predict_logits

EVERY = (LoRA, RsLoRA, DoRA, LoHa, LoKr, IA3, HRA)
LINEAR = nn.Linear(12, 20)
CONVOLUTION = nn.Conv2d(12, 20, 3, stride=2, padding=1)
LAID_OUT = nn.Conv2d(12, 20, 3, stride=2, padding=1).to(memory_format=torch.channels_last)  # as a pass over images leaves them


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def source_of(layer: nn.Module) -> Source:
    """A source whose one stage is that layer."""
    flat = isinstance(layer, nn.Linear)
    body = Backbone({"a": layer}, dim=20, preprocess=ColumnInput(tuple("abcdefghijkl")) if flat else Preprocess(size=6))
    return Source("one", stages=("a",), dim=20, opener=lambda: body, tune_cuts=(0,), modality="tabular" if flat else "image")


def built(method: Adapter, source: Source, *, classes: int = 2, n: int = 40) -> Net:
    features = numbers(n, source.backbone.dim).double().numpy()
    return method.build(source, features=features, y=np.arange(n) % classes, classes=classes, seed=0)


def moved(body: nn.Module) -> nn.Module:
    """Every tensor that learns, moved somewhere."""
    with torch.no_grad():
        for i, tensor in enumerate(p for p in body.parameters() if p.requires_grad):
            tensor.add_(0.3 * numbers(*tensor.shape, seed=i + 1))
    return body


def tensors(layer: nn.Module) -> dict[str, np.ndarray]:
    """An adapter's own tensors by peft's names, in float64."""
    return {name.split(".")[0]: p.detach().double().numpy() for name, p in layer.named_parameters() if p.requires_grad}


def lora(w: np.ndarray, own: dict[str, np.ndarray], *, scale: float) -> np.ndarray:
    return w + scale * own["lora_B"].reshape(len(w), -1) @ own["lora_A"].reshape(-1, w.shape[1])


def dora(w: np.ndarray, own: dict[str, np.ndarray]) -> np.ndarray:
    turned = lora(w, own, scale=2.0)
    return own["lora_magnitude_vector"].reshape(-1, 1) * turned / np.linalg.norm(turned, axis=1, keepdims=True)


def loha(w: np.ndarray, own: dict[str, np.ndarray]) -> np.ndarray:
    return w + 2.0 * (own["hada_w1_a"] @ own["hada_w1_b"]) * (own["hada_w2_a"] @ own["hada_w2_b"])


def lokr(w: np.ndarray, own: dict[str, np.ndarray]) -> np.ndarray:
    small, large = own["lokr_w1"], own["lokr_w2"]  # (4, 3) and (5, 4) or (5, 4, 3, 3): of 20 outputs and 12 inputs the factors nearest to square
    return w + 2.0 * np.einsum("ab,cd...->acbd...", small, large).reshape(w.shape)


def hra(w: np.ndarray, own: dict[str, np.ndarray]) -> np.ndarray:
    for u in own["hra_u"].T:
        w = w @ (np.eye(len(u)) - 2.0 * np.outer(u, u) / (u @ u))
    return w


WRITTEN = {
    "lora": (LoRA(r=4, alpha=8), lambda w, own: lora(w, own, scale=2.0)),
    "rs-lora": (RsLoRA(r=4, alpha=8), lambda w, own: lora(w, own, scale=4.0)),
    "dora": (DoRA(r=4, alpha=8), dora),
    "loha": (LoHa(r=4, alpha=8), loha),
    "lokr": (LoKr(r=4, alpha=8), lokr),
    "ia3": (IA3(), lambda w, own: own["ia3_l"].reshape(-1, 1) * w),
    "hra": (HRA(r=4), hra),
}


@pytest.mark.parametrize("layer", [LINEAR, CONVOLUTION, LAID_OUT], ids=["linear", "convolution", "channels last"])
@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_merged_is_the_formula_of_the_paper_and_what_was_trained(name: str, layer: nn.Linear | nn.Conv2d) -> None:
    method, formula = WRITTEN[name]
    x = numbers(5, 12) if isinstance(layer, nn.Linear) else numbers(5, 12, 7, 7)
    body = moved(built(method, source_of(layer)).body)
    with torch.no_grad():
        apart, own = body(x), tensors(body[0])
        plain = merged(body)
        expected = formula(layer.weight.double().numpy().reshape(20, -1), own)
        assert type(plain[0]) is type(layer)
        np.testing.assert_allclose(plain[0].weight.double().numpy().reshape(20, -1), expected, atol=2e-6)
        bias = own["ia3_l"].ravel() * layer.bias.numpy() if name == "ia3" else layer.bias.numpy()
        np.testing.assert_allclose(plain[0].bias.numpy(), bias, atol=1e-6)
        torch.testing.assert_close(plain(x), apart, atol=1e-5, rtol=1e-5)
        assert float((apart - layer(x)).abs().max()) > 0.1  # or the comparison would say nothing


COUNTS = {
    "lora": lambda i, o, k: 4 * (i * k + o),
    "rs-lora": lambda i, o, k: 4 * (i * k + o),
    "dora": lambda i, o, k: 4 * (i * k + o) + o,
    "loha": lambda i, o, k: 2 * 4 * (i * k + o),
    "ia3": lambda i, o, k: o,
    "hra": lambda i, o, k: 4 * i * k,
}


@pytest.mark.parametrize("name", COUNTS)
def test_as_many_numbers_learn_as_the_formula_says(name: str) -> None:
    method = WRITTEN[name][0]
    net = built(type(method)(**({} if name == "ia3" else {"r": 4}), depth=2), tiny_source())
    learnt = sum(one.tensor.numel() for one in learners(net, method) if one.allowed and one.name.startswith("body"))
    assert learnt == sum(COUNTS[name](i, o, 9) for i, o in ((3, 6), (6, 8), (8, 10)))


def test_of_the_kronecker_product_the_small_factors_learn() -> None:
    net = built(LoKr(r=8), source_of(LINEAR))
    assert sum(p.numel() for p in net.body.parameters() if p.requires_grad) == 4 * 3 + 5 * 4


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.name)
def test_training_starts_where_the_source_ends(kind: type[Adapter]) -> None:
    source, x = tiny_source(), numbers(6, 3, 8, 8)
    net = built(kind(depth=2), source)  # type: ignore[call-arg]
    with torch.no_grad():
        torch.testing.assert_close(net.eval().body(x), source.backbone(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.name)
def test_of_what_is_served_only_the_weights_of_adapted_layers_differ_from_the_source(kind: type[Adapter]) -> None:
    source = tiny_source()
    method = kind(depth=2, steps=5)  # type: ignore[call-arg]
    y = np.arange(40) % 2
    net, _ = fit(method, built(method, source), (numbers(40, 3, 8, 8) + torch.from_numpy(y).view(-1, 1, 1, 1)).numpy(), y, seed=0)
    theirs = source.backbone.above(0).state_dict()
    assert net.body.state_dict().keys() == theirs.keys()
    differ = {name for name, value in net.body.state_dict().items() if not torch.equal(value, theirs[name])}
    biases = {"stem.0.bias", "mid.0.bias", "top.0.bias"} if kind is IA3 else set()
    assert differ == {"stem.0.weight", "mid.0.weight", "top.0.weight"} | biases


class Standardised(nn.Conv2d):
    """Uses its weight in a way of its own."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, w, self.bias)


def test_only_layers_whose_merged_weight_is_what_was_trained_are_taken() -> None:
    shared = nn.Linear(4, 4)
    tied = nn.Linear(4, 4)
    tied.weight = nn.Parameter(torch.ones(4, 4))
    also_tied = nn.Linear(4, 4)
    also_tied.weight = tied.weight
    body = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(4, 4, 3, groups=4),
            dilated=nn.Conv2d(4, 4, 3, dilation=2),
            mirrored=nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
            own=Standardised(4, 4, 1),
            attention=nn.MultiheadAttention(4, 2),
            once=nn.ModuleDict({"conv": nn.Conv2d(4, 4, (1, 3)), "linear": nn.Linear(4, 4)}),
            twice=nn.ModuleDict({"a": shared, "b": shared}),
            tied=nn.ModuleDict({"a": tied, "b": also_tied}),
        )
    )
    assert LoRA().targets(body) == ["once.conv", "once.linear"]
    assert HRA().targets(body) == ["once.linear"]
    assert IA3().targets(body) == ["conv", "dilated", "mirrored", "once.conv", "once.linear"]


def test_a_layer_whose_name_ends_like_that_of_an_adapted_one_is_left_alone() -> None:
    stages = {"block": nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3))), "conv": nn.Conv2d(4, 4, 3, groups=4)}
    body = Backbone(stages, dim=4, preprocess=Preprocess(size=8))
    source = Source("two", stages=tuple(stages), dim=4, opener=lambda: body, tune_cuts=(0,))
    adapted = built(LoRA(), source).body
    assert type(adapted.get_submodule("conv")) is nn.Conv2d
    assert type(adapted.get_submodule("block.conv")) is not nn.Conv2d


def test_a_cut_above_which_no_layer_can_be_adapted_is_passed_over() -> None:
    body = tiny_source().backbone
    sources = [Source("tiny", dim=10, stages=tuple(body.stages), opener=lambda: body, tune_cuts=cuts) for cuts in ((0, 3), (3,), (0, 1, 2))]
    assert [(LoRA(depth=0).cut(source), LoRA(depth=1).cut(source)) for source in sources] == [(0, 0), (0, 0), (2, 0)]


def test_an_rs_lora_is_a_lora_with_a_larger_scale() -> None:
    y, nets = np.arange(40) % 2, []
    for method in (RsLoRA(r=16, alpha=8, steps=4), LoRA(r=16, alpha=32, steps=4)):  # 8 / sqrt(16) and 32 / 16
        net = built(method, tiny_source())
        x = numbers(40, 8, 8, 8).numpy()
        nets.append(fit(method, net, x, y, seed=0)[0])
    assert all(torch.equal(a, b) for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True))


def tiny_gpt() -> Source:
    config = {"n_embd": 12, "n_layer": 2, "n_head": 2, "vocab_size": 20, "n_positions": 16, "bos_token_id": 0, "eos_token_id": 0}
    body = from_config({"model_type": "gpt2", **config}, max_length=8)
    return Source("gpt", dim=12, stages=tuple(body.stages), opener=lambda: body, modality="text", tune_cuts=(0, 1, 2))


@pytest.mark.parametrize("kind", [LoRA, DoRA, IA3], ids=lambda kind: kind.name)
def test_the_layers_of_gpt_2_whose_weights_lie_on_their_sides_are_adapted_too(kind: type[Adapter]) -> None:
    source = tiny_gpt()
    check_method(kind, source)
    body = moved(built(kind(), source).body).eval()
    x = torch.stack([torch.arange(16).view(2, 8), torch.ones(2, 8, dtype=torch.long)], dim=-1)
    with torch.no_grad():
        low = source.backbone.below(kind().cut(source))(x)
        apart = body(low)
        torch.testing.assert_close(merged(body)(low), apart, atol=1e-5, rtol=1e-5)


def bare() -> Source:
    body = Backbone({"pool": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())}, dim=3, preprocess=Preprocess(size=4))
    return Source("bare", stages=("pool",), dim=3, opener=lambda: body, tune_cuts=(0,))


NEEDS = [
    (LoRA(), bare(), "Method 'lora' needs a source with linear layers, or convolutions without groups; 'bare' is not one."),
    (LoHa(), tiny_gpt(), "Method 'loha' needs a source with PyTorch's own linear layers, or convolutions without groups; 'gpt' is not one."),
]


@pytest.mark.parametrize(("method", "source", "words"), NEEDS, ids=["lora", "loha"])
def test_a_source_without_a_layer_to_adapt_is_told_in_one_line(method: Adapter, source: Source, words: str) -> None:
    with pytest.raises(InputError) as told:
        require(method, source, classes=2)
    assert str(told.value) == f"{words} Choose another method: headstart methods."


def test_without_peft_the_install_line_is_said_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)  # Python's own mark of a module that cannot be imported
    with pytest.raises(InputError, match=r"^Adapters need the package peft. Install it: pip install 'headstart\[adapters\]'$"):
        tuners(["l2-sp", "lora"])


def test_a_net_that_was_adapted_predicts_alike_before_and_after_it_is_merged() -> None:
    source, method, y = tiny_source(), LoRA(steps=10, rate=1e-2), np.arange(40) % 2
    x = (numbers(40, 8, 8, 8) + torch.from_numpy(y).view(-1, 1, 1, 1)).numpy()
    held: list[dict[str, Tensor]] = []
    net, _ = fit(method, built(method, source), x, y, seed=0, keep=(10, lambda checkpoint: held.append(copy.deepcopy(checkpoint.net))))
    apart = built(method, source)
    apart.load_state_dict(held[0])
    np.testing.assert_allclose(predict_logits(apart, x), predict_logits(net, x), atol=1e-5)

"""Every trained method, on a convolutional network, a vision transformer and a BERT; and methods that break a law are caught."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.contract_method import CLASSES, ContractError, World, check_method, tiny_source
from headstart.core import Batch, Net, Preprocess, Source
from headstart.methods import METHODS, FineTune, Method
from headstart.methods.method import Criterion
from headstart.methods.model.layers import restart
from headstart.methods.needs import unmet
from headstart.methods.relations.deep import DEEP, Deep, SourceOnly
from headstart.methods.scratch import Scratch
from headstart.modality.cutting import cut
from headstart.modality.families import TIMM
from headstart.modality.language import from_config
from headstart.train import predict_logits

TUNERS = [m for methods in METHODS.values() for m in methods if issubclass(m, Method) and m is not Scratch]


def tiny_vit() -> Source:
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    net = VisionTransformer(img_size=32, patch_size=16, embed_dim=12, depth=2, num_heads=2, mlp_ratio=2.0, num_classes=5)
    family = next(f for f in TIMM if f.stages[0].startswith("embed = <timm embed>"))
    body = cut(net, family, Preprocess(size=32, crop=1.0))
    return Source("vit", dim=12, stages=tuple(body.stages), opener=lambda: body, tune_cuts=(0, 1, 2))


def tiny_bert() -> Source:
    config = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20, "max_position_embeddings": 16}
    body = from_config({"model_type": "bert", **config}, max_length=8)
    return Source("bert", dim=12, stages=tuple(body.stages), opener=lambda: body, modality="text", tune_cuts=(0, 1, 2))


DEEPS = [SourceOnly, *DEEP.values()]
SOURCES = {"cnn": tiny_source, "vit": tiny_vit, "bert": tiny_bert}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("method", TUNERS, ids=lambda m: m.name)
def test_every_method_obeys_the_contract(method: type[Method], source: str) -> None:
    check_method(method, SOURCES[source]())


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("method", DEEPS, ids=lambda m: m.name)
def test_every_method_of_two_domains_obeys_it_on_final_features_and_from_a_cut(method: type[Deep], source: str) -> None:
    for depth in (0, 1):
        check_method(method(depth=depth), SOURCES[source]())


@pytest.mark.parametrize("method", [m for m in TUNERS if "depth" in {f.name for f in dataclasses.fields(m)}], ids=lambda m: m.name)
def test_every_method_obeys_it_from_the_input_as_well(method: type[Method]) -> None:
    check_method(method(depth=2), tiny_source())  # type: ignore[call-arg]


@pytest.mark.parametrize("method", [*TUNERS, *DEEPS], ids=lambda m: m.name)
def test_every_method_trains_where_a_class_has_no_case(method: type[Method]) -> None:
    given, source = method(), tiny_source()
    world = World.of(given, source, classes=CLASSES - 1)
    if unmet(given, source, classes=CLASSES, unlabelled=True):
        return
    said = predict_logits(world.trained(given), world.x)
    assert said.shape == (len(world.x), CLASSES)
    assert np.isfinite(said).all()
    assert not issubclass(method, Deep) or not (said.argmax(axis=1) == CLASSES - 1).any()


def test_the_baseline_obeys_it() -> None:
    def twin(seed: int) -> object:
        torch.manual_seed(seed)
        body = tiny_source().backbone
        restart(body)
        return body

    check_method(Scratch(twin), tiny_source())  # type: ignore[arg-type]


@dataclass(frozen=True)
class Drifts(FineTune):
    """Freezes the first stage by its rate, but trains it through the back door."""

    name = "drifts"

    def rates(self, stages: int, progress: float) -> list[float]:
        return [0.0] + [1.0] * stages

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        with torch.no_grad():
            next(iter(net.body.parameters())).mul_(0.99)
        return super().loss(net, batch, criterion)


@dataclass(frozen=True)
class Shares(FineTune):
    """Trains the source itself."""

    name = "shares"

    def body(self, source: Source, *, seed: int) -> nn.Sequential:
        return source.backbone.above(self.cut(source))


@dataclass(frozen=True)
class Forgets(FineTune):
    """Draws from a generator that no checkpoint holds."""

    name = "forgets"

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        COUNT.append(1)
        return {**super().loss(net, batch, criterion), "noise": (len(COUNT) % 7) * net.head[1].weight.sum()}


@dataclass(frozen=True)
class Deaf(FineTune):
    """Says that its body learns, but its loss never reaches it."""

    name = "deaf"

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        return {"cross entropy": nn.functional.cross_entropy(net.head(net.body(batch.x).detach()), batch.y)}

    weight_decay = 0.0


@dataclass(frozen=True)
class Nameless(FineTune):
    """Says no paper."""

    name = "nameless"
    paper = ""


COUNT: list[int] = []
BREAKERS = [
    (Drifts, r"drifts: body.top.0.weight moved, though its stage has rate 0"),
    (Shares, r"shares: stages.top.0.weight of the source changed"),
    (Forgets, r"forgets: the same seed gives other weights"),
    (Deaf, r"deaf: body.* did not move, though its stage learns"),
    (Nameless, r"nameless: says no paper"),
]


@pytest.mark.parametrize(("method", "words"), BREAKERS, ids=[m.__name__ for m, _ in BREAKERS])
def test_methods_that_break_a_law_are_caught(method: type[Method], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        check_method(method)

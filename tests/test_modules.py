"""A module of one's own as a source: its stages are the module, its weights may come from a file, and no saved name calls code unasked."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart import sources
from headstart.core import InputError, Preprocess
from headstart.methods import Head2Toe, Probe, Stages
from headstart.sources import modules


class Own(nn.Module):
    """A network as people write them: functions between modules, a pooling, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.features = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.Tanh())
        self.block = nn.Sequential(OrderedDict(deep=nn.Conv2d(6, 5, 1)))
        self.fc = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.block(self.features(x))
        out: Tensor = self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return out


STAGES = ["stem=conv1+bn1+relu()", "features[0:2]", "features[2:]+block.deep"]
SMALL = Preprocess(size=16)


@pytest.fixture
def net() -> Own:
    torch.manual_seed(3)
    own = Own().train()
    own(torch.randn(8, 3, 16, 16))  # moves the statistics of the BatchNorm away from where they begin
    return own


@pytest.fixture(autouse=True)
def nothing_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "_TRUSTED", set())


def test_the_stages_of_a_module_are_the_module(net: Own) -> None:
    x = torch.randn(2, 3, 16, 16)
    source = sources.from_module(net, ["stem=conv1+bn1+relu()", "features[0:2]", "end=features[2:]+block.deep"], name="mine", classifier="fc", example=x)
    assert (source.stages, source.dim) == (("stem", "features_0_2", "end", "pool"), 5)
    assert source.parameters == sum(p.numel() for p in net.parameters()) - sum(p.numel() for p in net.fc.parameters())
    with torch.inference_mode():
        assert torch.allclose(source.backbone.classifier(source.backbone(x)), net(x), atol=1e-6)
        for cut in range(5):
            assert torch.equal(source.backbone.above(cut)(source.backbone.below(cut)(x)), source.backbone(x))


def test_a_tail_that_merely_pools_is_no_level_of_features(net: Own) -> None:
    plain, meaned = (sources.from_module(net, [*STAGES, *more], name="mine") for more in ([], ["mean=mean()"]))
    assert (plain.levels, meaned.stages[-2:], meaned.levels) == ((1, 2, 4), ("mean", "pool"), (1, 2, 5))
    views = [Probe(back=back, span=span).view(meaned).cuts for back, span in ((0, 1), (1, 1), (0, 2), (0, 4), (3, 4))]
    assert views == [(5,), (2,), (2, 5), (1, 2, 5), (1,)]
    assert Stages().view(meaned).cuts == Head2Toe().view(meaned).cuts == (1, 2, 5)


def own() -> Own:
    return Own()


def test_a_module_with_a_factory_is_rebuilt_from_its_recipe_and_its_weights(net: Own) -> None:
    source = sources.from_module(net, STAGES, name="mine", classifier="fc", preprocess=SMALL, factory=f"{__name__}:own")
    twin, x = sources.twin(source.recipe, seed=0), torch.randn(2, 3, 16, 16)
    assert not torch.equal(twin(x), source.backbone(x))
    assert torch.equal(sources.twin(source.recipe, seed=0)(x), twin(x))
    twin.load_state_dict(source.backbone.state_dict())
    with torch.inference_mode():
        assert torch.equal(twin(x), source.backbone(x))
    assert twin.preprocess == SMALL


def test_a_recipe_from_elsewhere_calls_no_code_until_the_user_trusts_it(net: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = sources.from_module(net, STAGES, name="mine", factory=f"{__name__}:own").recipe
    monkeypatch.setattr(modules, "_TRUSTED", set())
    called: list[int] = []
    monkeypatch.setattr(f"{__name__}.own", lambda: called.append(1) or Own())
    with pytest.raises(InputError, match=r"is code outside Headstart, so it is not called. Where you trust it: hs.sources.trust\('.*:own'\).$"):
        sources.twin(recipe, seed=0)
    assert called == []
    sources.trust(f"{__name__}:own")
    assert sources.twin(recipe, seed=0).dim == 5
    assert called == [1]


def test_a_factory_that_is_not_there_is_said(net: Own) -> None:
    source = sources.from_module(net, STAGES, name="mine", factory="nowhere:net")
    with pytest.raises(InputError, match=r"^'nowhere:net' cannot be imported \(No module named 'nowhere'\). Write package.module:function,"):
        sources.twin(source.recipe, seed=0)


@pytest.mark.parametrize("wrap", ["", "module.", "module.backbone."])
def test_weights_are_loaded_from_a_file_by_matching_names(wrap: str, net: Own, tmp_path: Path) -> None:
    torch.save({"state_dict": {wrap + k: v for k, v in net.state_dict().items() if not k.startswith("fc")}}, tmp_path / "w.pth")
    fresh = Own()
    source = sources.from_module(fresh, STAGES, name="mine", classifier="fc", weights=tmp_path / "w.pth")
    assert (source.backbone.loaded.share, source.backbone.loaded.prefix) == (1.0, wrap)
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in fresh.state_dict().items() if not k.startswith("fc"))


def test_weights_of_another_network_are_refused_and_the_module_is_left_alone(net: Own, tmp_path: Path) -> None:
    torch.save({"conv1.weight": net.conv1.weight, "other": torch.ones(3)}, tmp_path / "w.pth")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(
        InputError, match=r"^The weights do not fit Own: 1\d\.\d% of the body's weights found; missing: conv1.bias, .*; not used: other. At least 90% must."
    ):
        sources.from_module(net, STAGES, name="mine", classifier="fc", weights=tmp_path / "w.pth")
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_two_modules_that_differ_in_weights_or_stages_have_different_hashes(net: Own) -> None:
    hashes = [sources.from_module(net, stages, name="mine").weights_sha256 for stages in (STAGES, STAGES, ["stem=conv1+bn1", *STAGES[1:]])]
    with torch.no_grad():
        net.conv1.bias.add_(1)
    hashes.append(sources.from_module(net, STAGES, name="mine").weights_sha256)
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


X = torch.ones(1, 3, 16, 16)
REFUSED = [
    ([], "fc", "The list of stages is empty. Name the module's parts in the order in which they run."),
    (
        ["conv1", "blok.deep"],
        "fc",
        "Own has no part 'blok.deep'. Did you mean 'block.deep'? Its children: conv1, bn1, features, block, fc. Between parts there may be:",
    ),
    (["conv1()"], "fc", "Own has no part 'conv1()'. Did you mean 'conv1'?"),
    (["conv1[0:1]"], "fc", "'conv1[0:1]': conv1 is a Conv2d, and only a Sequential can be sliced. Name its parts one by one."),
    (["conv1", "conv1+bn1"], "fc", "Two stages are called 'conv1'. Give one another name: 'NAME=conv1+bn1'."),
    (["features", "conv1"], "fc", "Stage 'features' of 'mine' does not take what comes before it, (1, 3, 16, 16) ("),
    (["conv1+bn1", *STAGES[1:]], "fc", "The stages of 'mine' do not give what the module gives for the example. List every part that runs, in order."),
    (
        STAGES,
        "",
        "The stages of 'mine' do not give what the module gives for the example. List every part that runs, in order. Where a layer makes class scores,",
    ),
]


@pytest.mark.parametrize(("stages", "classifier", "message"), REFUSED)
def test_stages_that_are_not_the_module_are_refused(stages: list[str], classifier: str, message: str, net: Own) -> None:
    with pytest.raises(InputError, match=rf"^{re.escape(message)}"):
        sources.from_module(net, stages, name="mine", classifier=classifier, example=X)

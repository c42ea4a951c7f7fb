"""Engines: each gives what plain float32 PyTorch gives, within the bound of its precision, for batches of any size, and says so when it cannot."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import headstart as hs
from headstart.activations import graphs_of, wanted_of
from headstart.activations.engines import ENGINES, Outputs, available, forward, open_engine, require, revision, sample
from headstart.activations.engines import graphs as graph_engines
from headstart.activations.engines.pytorch import folded
from headstart.activations.store import Store
from headstart.core import Backbone, InputError, Preprocess, Source

HERE = [e for e in available() if not e.startswith("cuda")]
BOUND = {"float32": 1e-4, "bfloat16": 0.1}  # of an output's deviation, as a mean; bfloat16 has 8 bits


def small() -> Source:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    stages = {
        "stem": nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), norm, nn.ReLU()),
        "final": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    }
    body = Backbone(stages, dim=5, preprocess=Preprocess(size=16, crop=1.0))
    return Source("small", dim=5, stages=tuple(stages), opener=lambda: body, digest=lambda: "w")


def batch(source: Source, n: int) -> Tensor:
    """Noise; texts of 3 to 12 tokens."""
    x = sample(source.backbone, n)
    if x.ndim == 4:
        return torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1000, 20000, (n, 12), generator=generator)
    lengths = torch.randint(3, 13, (n, 1), generator=generator)
    lengths[0] = 12  # a batch is as long as its longest
    mask = (torch.arange(12)[None] < lengths).long()
    return torch.stack([tokens * mask, mask], dim=2)


def wanted(source: Source) -> list:
    k = len(source.stages)
    return wanted_of(range(1, k + 1), (k - 1,))


def plain(source: Source, x: Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        return [out.float().numpy() for out in Outputs(source.backbone, wanted(source))(x)]


@pytest.fixture(scope="module", params=["small", "squeezenet", "efficientnet_lite0", "all-MiniLM-L6-v2"])
def source(request: pytest.FixtureRequest) -> Source:
    return small() if request.param == "small" else hs.sources.get(request.param)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("graphs"))


@pytest.mark.parametrize("name", HERE)
def test_every_engine_gives_what_pytorch_gives(name: str, source: Source, store: Store) -> None:
    ask = wanted(source)
    run = open_engine(name, source, ask, kept=graphs_of(source, ask, store=store, engine=name))
    for n in (7, 3, 1):
        x = batch(source, n)
        got, right = run(x), plain(source, x)
        for ours, theirs in zip(got, right, strict=True):
            assert ours.dtype == np.float32
            assert ours.shape == theirs.shape
            assert np.abs(ours - theirs).mean() <= BOUND[ENGINES[name][2]] * max(theirs.std(), 1e-3)


@pytest.mark.parametrize("name", HERE)
def test_the_same_batch_gives_the_same_bytes(name: str) -> None:
    source = small()
    x = batch(source, 5)
    one, two = (open_engine(name, source, wanted(source))(x) for _ in range(2))
    assert [a.tobytes() for a in one] == [b.tobytes() for b in two]


def test_a_graph_is_converted_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, converted = small(), []
    original = graph_engines._exported
    monkeypatch.setattr(graph_engines, "_exported", lambda *given: converted.append(1) or original(*given))  # why: counts conversions
    ask = wanted(source)
    for name in ("openvino", "openvino-bf16", "openvino", "onnxruntime", "onnxruntime"):
        open_engine(name, source, ask, kept=graphs_of(source, ask, store=Store(tmp_path), engine=name))
    assert len(converted) == 2  # both precisions of OpenVINO share a graph


def test_a_network_that_cannot_be_exported_is_one_clear_line() -> None:
    class Wild(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) * (1 if float(x.sum()) > 0 else 2)

    body = Backbone({"wild": Wild()}, dim=3, preprocess=Preprocess(size=8, crop=1.0))
    source = Source("wild", dim=3, stages=("wild",), opener=lambda: body, digest=lambda: "w")
    for name in ("openvino", "onnxruntime"):
        with pytest.raises(InputError, match=rf"^wild cannot be converted for the engine {name} \([^\n]+\)\. Use the engine torch, or auto\.$"):
            open_engine(name, source, [("pooled", 1)])


@pytest.mark.parametrize("most", [1, 3, 8])
def test_where_memory_runs_out_halves_are_run(most: int) -> None:
    sizes = []

    def tight(x: Tensor) -> list[np.ndarray]:
        if len(x) > most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        sizes.append(len(x))
        return [x.numpy() * 2]

    x = torch.arange(10.0)[:, None]
    np.testing.assert_array_equal(forward(tight, x)[0], x.numpy() * 2)
    assert max(sizes) <= most
    assert sum(sizes) == 10


def test_memory_too_small_for_one_input_says_so_and_other_errors_pass() -> None:
    def full(x: Tensor) -> list[np.ndarray]:
        raise MemoryError

    def broken(x: Tensor) -> list[np.ndarray]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(InputError, match="Memory ran out with a single input"):
        forward(full, torch.zeros(4, 1))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        forward(broken, torch.zeros(4, 1))


def test_an_unknown_or_absent_engine_is_refused() -> None:
    with pytest.raises(InputError, match=r"There is no engine 'tensorrt'\. Say auto, torch, torch-bf16, openvino"):
        require("tensorrt")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"The engine cuda cannot be used here: no GPU is visible to PyTorch\. These can: torch"):
            require("cuda")


def test_what_an_engine_makes_is_not_taken_for_anothers() -> None:
    assert len({revision(name) for name in ENGINES}) == len(ENGINES)


@pytest.mark.parametrize("name", ["densenet121", "mobilenetv3_small_050", "resnet18", "regnety_002", "vgg11_bn"])
def test_batchnorm_is_folded_and_nothing_else_changes(name: str) -> None:
    torch.manual_seed(0)
    net = timm.create_model(name, pretrained=False).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    wrapped = Single(net)
    got = folded(wrapped, torch.randn(1, 3, 64, 64))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = got(x)[0], net(x)
    assert float((ours - theirs).abs().max()) <= 1e-3 * float(theirs.abs().max())
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in n.modules()) for n in (wrapped, got)]
    assert norms[1] < 0.6 * norms[0]  # DenseNet norms before it convolves, so that every other one stays
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_batchnorm_whose_convolution_is_read_by_others_stays() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            nn.init.normal_(self.norm.running_mean)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            y = self.conv(x)
            return (y + self.norm(y),)

    net, x = Both().eval(), torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(folded(net, x[:1])(x)[0], net(x)[0])


class Single(nn.Module):
    """A network with a tuple of one output, as engines are given."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.net(x),)

"""Real targets and real sources for the benchmarks of assessment: what is predicted, and what it is measured on.

Targets come from installed packages (ELPV, scikit-learn's digits), from a folder of data sets (``--data``: PACS, chest radiographs, blood cells, MNIST, USPS,
COIL) and from a folder of unpacked npm and Debian packages (``--packages``: ``iconify/<style>/icons.json``, ``fashion_mnist/*.gz``). Sources are the packaged
ones and, in ``DATA/weights``, MobileNets of ImageNet and iNaturalist and ResNets of CIFAR-10. What is absent is named and left out.

Each target is cut, by one fixed rule and seed, to about 200 training and 300 test images: groups first (four tenths of them may train, the rest may test), then
within each side the same number of every class as far as it reaches. Equal images are kept once. A target with fewer than 100 test images is left out.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import InputError, Preprocess, Source

TRAIN, TEST, LEAST_TEST = 200, 300, 100
SHARE_TRAINED = 0.4
RARE = 0.03  # share of the texts under which a label is left out: of 200 it would have too few for folds
SEED = 20_261_124
CELLS = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
GARMENTS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
INAT = "iNaturalist 2017 {} ({} classes), from ImageNet"
IMAGENET = "ImageNet-1k (1.28 M photographs, 1,000 classes)"
CIFAR = "CIFAR-10 (50,000 photographs of 32 pixels, 10 classes)"


@dataclass(frozen=True)
class Target:
    """A real task: inputs (paths or arrays), class codes, and the rows that train and that test."""

    name: str
    labels: tuple[str, ...]
    items: tuple[Any, ...]
    y: np.ndarray
    groups: np.ndarray
    train: np.ndarray
    test: np.ndarray


def names(data: Path | None, packages: Path | None) -> list[str]:
    """Return the names of the targets whose folders are given; whether they can be read shows when they are."""
    return list(_readers(data, packages))


def targets(data: Path | None, packages: Path | None, *, only: str | None = None) -> Iterator[Target]:
    """Yield every target that is here, or the one of that name; say which are not."""
    for name, read in _readers(data, packages).items():
        if only not in (None, name):
            continue
        try:
            items, labels, groups = read()
        except (OSError, ImportError) as error:
            print(f"skipped {name}: {type(error).__name__}: {error}", flush=True)
            continue
        target = cut(name, items, labels, groups)
        if len(target.test) < LEAST_TEST:
            print(f"skipped {name}: {len(target.test)} test images, and under {LEAST_TEST} an accuracy is too uncertain to compare with", flush=True)
            continue
        yield target


def cut(name: str, items: Sequence[Any], labels: Sequence[str], groups: Sequence[Any] | None, *, seed: int = SEED) -> Target:
    """Return the target of those images; ``groups`` (n,) are never on both sides. Classes too rare for 8 and 12 images are left out."""
    from headstart.modality.image import digest

    first = {digest(item): i for i, item in reversed(list(enumerate(items)))}
    rows = np.array(sorted(first.values()))
    y = np.asarray(labels)[rows]
    units = np.arange(len(rows)) if groups is None else np.unique(np.asarray(groups)[rows], return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    rank = np.empty(units.max() + 1)
    for label in np.unique(y):  # why by class: where every image is its own group, each class is shared out alike
        own = np.unique(units[y == label])
        rank[own] = rng.permutation(len(own)) / len(own)
    may_train = rank[units] < SHARE_TRAINED
    names = [c for c in sorted(set(y)) if np.sum((y == c) & may_train) >= 8 and np.sum((y == c) & ~may_train) >= 12]
    train, test = ([_some(np.flatnonzero((y == c) & side), total / len(names), rng) for c in names] for side, total in ((may_train, TRAIN), (~may_train, TEST)))
    keep = np.concatenate([*train, *test])
    n = sum(map(len, train))
    codes = np.array([names.index(label) for label in y[keep]])
    return Target(name, tuple(names), tuple(items[i] for i in rows[keep]), codes, units[keep], np.arange(n), np.arange(n, len(keep)))


def _some(rows: np.ndarray, wanted: float, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.permutation(rows)[: round(wanted)])


Raw = tuple[Sequence[Any], Sequence[str], Sequence[Any] | None]


def _readers(data: Path | None, packages: Path | None) -> dict[str, Callable[[], Raw]]:
    out: dict[str, Callable[[], Raw]] = {"digits8": _digits, "elpv mono": lambda: _elpv("mono"), "elpv poly": lambda: _elpv("poly")}
    if data is None or not data.is_dir():
        print(f"skipped PACS, radiographs, blood cells, MNIST, USPS, COIL: --data {data} is no folder", flush=True)
    else:
        out |= {f"pacs {d}": lambda d=d: _folders(data / "pacs112" / d) for d in ("photo", "art_painting", "cartoon", "sketch")}  # type: ignore[misc]
        out |= {"chest x-rays": lambda: _folders(data / "covid_cxr"), "blood boxes": lambda: _boxes(data / "bccd")}
        out |= {f"white cells {k}": lambda k=k: _cells(data / "wbc_seg", k) for k in (1, 2)}  # type: ignore[misc]
        out |= {"mnist": lambda: _matlab(data, "MNIST_vs_USPS.mat", "s"), "usps": lambda: _matlab(data, "MNIST_vs_USPS.mat", "t")}
        out |= {"coil": lambda: _matlab(data, "COIL1_vs_COIL2.mat", "s")}
    if packages is None or not packages.is_dir():
        print(f"skipped Fashion-MNIST and emoji: --packages {packages} is no folder", flush=True)
    else:
        out |= {"fashion": lambda: _fashion(packages / "fashion_mnist")}
        out |= {f"emoji {s}": lambda s=s: _emoji(packages / "iconify" / s) for s in ("noto", "openmoji", "fluent-emoji-flat")}  # type: ignore[misc]
    return out


def sentences(path: Path) -> tuple[list[str], list[str]]:
    """Return texts and labels of a file whose lines are a label and a text: none twice, shuffled by one seed, labels under three in a hundred left out."""
    lines = [line for line in path.read_text(encoding="latin-1").splitlines() if " " in line]
    pairs = list({text: label for label, text in (line.split(" ", 1) for line in lines)}.items())
    counts = Counter(label for _, label in pairs)
    pairs = [pair for pair in pairs if counts[pair[1]] > RARE * len(lines)]
    rows = np.random.default_rng(SEED).permutation(len(pairs))
    return [pairs[i][0] for i in rows], [pairs[i][1] for i in rows]


def _digits() -> Raw:
    from sklearn.datasets import load_digits

    found = load_digits()
    return list((found.images * 15.9).astype(np.uint8)), [str(v) for v in found.target], None


def _elpv(crystal: str) -> Raw:
    from elpv_dataset.utils import load_dataset

    images, probability, kind = load_dataset()
    rows = [i for i in range(len(images)) if kind[i] == crystal and probability[i] in (0.0, 1.0)]
    return [images[i] for i in rows], ["defective" if probability[i] else "functional" for i in rows], None


def _folders(root: Path) -> Raw:
    paths = sorted(p for p in root.glob("*/*") if p.suffix in {".jpg", ".jpeg", ".png"})
    if not paths:
        raise FileNotFoundError(f"no images in {root}")
    patients = [p.stem.split("_")[0] if root.name == "covid_cxr" else str(p) for p in paths]  # NIH names are patient_visit
    return [str(p) for p in paths], [p.parent.name for p in paths], patients


def _cells(root: Path, k: int) -> Raw:
    with (root / f"labels_dataset{k}.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    paths = {int(p.stem): str(p) for p in (root / f"dataset{k}" / "images").iterdir()}
    rows = [row for row in rows if row and row[0] and int(row[0]) in paths]
    return [paths[int(i)] for i, _ in rows], [CELLS[int(c) - 1] for _, c in rows], None


def _boxes(root: Path) -> Raw:
    """Cells cut out of smears, with a sixth of the box around them; the smear is the group."""
    from PIL import Image

    items, labels, groups = [], [], []
    for path in sorted((root / "Annotations").glob("*.xml")):
        image = np.asarray(Image.open(root / "JPEGImages" / f"{path.stem}.jpg").convert("RGB"))
        for box in ElementTree.parse(path).getroot().iter("object"):
            left, top, right, bottom = (int(box.findtext(f"bndbox/{side}", "0")) for side in ("xmin", "ymin", "xmax", "ymax"))
            if right - left < 8 or bottom - top < 8:
                continue
            more = (right - left + bottom - top) // 12
            items.append(np.ascontiguousarray(image[max(0, top - more) : bottom + more, max(0, left - more) : right + more]))
            labels.append(str(box.findtext("name")))
            groups.append(path.stem)
    return items, labels, groups


def _matlab(data: Path, file: str, side: str) -> Raw:
    import h5py

    with h5py.File(data / "mnist_usps" / file) as held:
        x, y = np.asarray(held[f"X{side}"], dtype=np.float64), np.asarray(held[f"Y{side}"])[0].astype(int)
    if x.shape[0] != len(y):
        x = x.T
    edge = int(np.sqrt(x.shape[1]))
    grey = (255 * (x - x.min()) / (x.max() - x.min())).round().astype(np.uint8).reshape(-1, edge, edge)
    return list(grey), [f"{v:02d}" for v in y], None


def _fashion(root: Path) -> Raw:
    """The 10,000 test images, which more than suffice."""
    x = np.frombuffer(gzip.decompress((root / "t10k-images-idx3-ubyte.gz").read_bytes())[16:], dtype=np.uint8).reshape(-1, 28, 28)
    y = np.frombuffer(gzip.decompress((root / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:], dtype=np.uint8)
    return list(x), [GARMENTS[v] for v in y], None


def _emoji(root: Path) -> Raw:
    """Emoji by category, drawn at 128 pixels on white; an icon in two categories is left out, and people are (their variants differ in hue alone)."""
    import resvg_py

    held, about = (json.loads((root / f"{name}.json").read_text()) for name in ("icons", "metadata"))
    wanted = {c: names for c, names in about["categories"].items() if c.split()[0] not in {"Flags", "Extras", "People"}}
    count: dict[str, int] = {}
    for names in wanted.values():
        count |= {name: count.get(name, 0) + 1 for name in names}
    items, labels = [], []
    for category, names in sorted(wanted.items()):
        for name in sorted(n for n in names if count[n] == 1 and n in held["icons"]):
            items.append(_drawn(held["icons"][name]["body"], held, resvg_py))
            labels.append(category)
    return items, labels, None


def _drawn(body: str, held: Mapping[str, Any], resvg: Any) -> np.ndarray:
    import io

    from PIL import Image

    width, height = held.get("width", 16), held.get("height", 16)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="128" height="128">{body}</svg>'
    png = Image.open(io.BytesIO(bytes(resvg.svg_to_bytes(svg_string=svg)))).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", png.size, "white"), png).convert("RGB"))


def sources(data: Path | None) -> list[Source]:
    """Return the pool; say what is absent. Names of the packaged ones are those of the catalogue."""
    import headstart as hs

    out = []
    for name in ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "squeezenet"):
        try:
            out.append(hs.sources.get(name))
        except InputError as error:
            print(f"skipped {name}: {error}", flush=True)
    weights = (data or Path()) / "weights"
    if not weights.is_dir():
        print(f"skipped MobileNets and ResNets: there is no {weights}", flush=True)
        return out
    return [*out, *_mobilenets(weights / "mobilenet"), *_resnets(weights / "resnet_cifar10")]


def _mobilenets(folder: Path) -> Iterator[Source]:
    """why by hand: ``timm:mobilenetv2_100@FILE`` cannot say that these were trained with TensorFlow's padding, and without it they see shifted images."""
    import timm
    from timm.models.efficientnet import _gen_mobilenet_v1

    import headstart as hs

    v2 = (
        ("mobilenetv2 imagenet", "mobilenet_v2_1.0_224_quant", 1001, IMAGENET),
        ("mobilenetv2 birds", "mobilenet_v2_1.0_224_inat_bird_quant", 965, INAT.format("birds", 964)),
        ("mobilenetv2 insects", "mobilenet_v2_1.0_224_inat_insect_quant", 1022, INAT.format("insects", "1,021")),
    )
    padded: dict[str, Any] = {"pad_type": "same", "bn_eps": 1e-3}
    look = Preprocess(224, 0.875, "bilinear", (0.5,) * 3, (0.5,) * 3)
    for name, file, classes, trained_on in v2:
        net = timm.create_model("mobilenetv2_100", num_classes=classes, **padded)
        parts = ["stem=conv_stem+bn1", *(f"blocks.{i}" for i in range(7)), "head=conv_head+bn2+mean()"]
        about = {"name": name, "classifier": "classifier", "weights": folder / f"{file}.timm.pt", "trained_on": trained_on, "licence": "Apache-2.0"}
        yield hs.sources.from_module(net, parts, preprocess=look, example=torch.rand(1, 3, 224, 224), **about)
    net = _gen_mobilenet_v1("mobilenetv1_100", channel_multiplier=0.5, num_classes=1001, **padded)
    parts = ["stem=conv_stem+bn1", *(f"blocks.{i}" for i in range(5)), "mean=mean()"]
    look = Preprocess(160, 0.875, "bilinear", (0.5,) * 3, (0.5,) * 3)
    about = {"name": "mobilenetv1 half", "classifier": "classifier", "weights": folder / "mobilenet_v1_0.5_160_quant.timm.pt", "licence": "Apache-2.0"}
    yield hs.sources.from_module(net, parts, preprocess=look, example=torch.rand(1, 3, 160, 160), trained_on=IMAGENET, **about)


def _resnets(folder: Path) -> Iterator[Source]:
    import headstart as hs

    for depth, file in ((20, "resnet20-12fca82f.th"), (56, "resnet56-4bfd9763.th")):
        blocks = (depth - 2) // 6
        parts = ["stem=conv1+bn1+relu()", *(f"{p}=layer{k}[{a}:{b}]" for k in (1, 2, 3) for p, a, b in _thirds(k, blocks)), "mean=mean()"]
        look = Preprocess(32, 1.0, "bilinear")
        about = {"classifier": "linear", "weights": folder / file, "trained_on": CIFAR, "licence": "BSD-2-Clause", "example": torch.rand(1, 3, 32, 32)}
        yield hs.sources.from_module(CifarResNet(blocks), parts, name=f"resnet{depth} cifar10", preprocess=look, **about)


def _thirds(k: int, blocks: int) -> list[tuple[str, int, int]]:
    return [(f"layer{k}_{i}", i * blocks // 3, (i + 1) * blocks // 3) for i in range(3)]


class CifarResNet(nn.Module):
    """The ResNet of 6n + 2 layers for CIFAR, shortcuts without parameters (He et al. 2016, sec. 4.2, option A)."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*(CifarBlock(low if i == 0 else high, high) for i in range(blocks))) for low, high in ((16, 16), (16, 32), (32, 64))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
        out: Tensor = self.linear(x.mean(dim=(2, 3)))
        return out


class CifarBlock(nn.Module):
    """Two convolutions around a shortcut that, where the width doubles, takes every second pixel and fills up with zeros on both sides."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.stride, self.fill = high // low, (high - low) // 2
        self.conv1 = nn.Conv2d(low, high, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(high)
        self.conv2 = nn.Conv2d(high, high, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(high)

    def forward(self, x: Tensor) -> Tensor:
        short = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.fill, self.fill))
        return functional.relu(self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))) + short)

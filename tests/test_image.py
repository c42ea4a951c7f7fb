"""Images: every mode becomes 8-bit RGB as arithmetic on the pixels says, and what cannot be read whole is refused by name."""

import base64
import dataclasses
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.core import Domain, InputError, Task
from headstart.modality import image

RED, BLUE, WHITE, BLACK = [255, 0, 0], [0, 0, 255], [255] * 3, [0] * 3
UPRIGHT = {  # EXIF 2.32, section 4.6.4: orientation -> what turns the stored pixels upright
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def noise(h: int, w: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8)


def row(values: list, kind: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.array([values], dtype=kind))


def paletted() -> Image.Image:
    picture = row([0, 1])
    picture.putpalette(RED + BLUE)
    return picture


def jpeg(path: Path, *, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise(16, 24)).save(path, exif=exif)
    return path


def task_of(folder: Path, **counts: int) -> Task:
    """A task of grey images; image i of a class is 10 + i pixels wide."""
    names = [(name, i) for name, n in counts.items() for i in range(n)]
    for name, i in names:
        Image.fromarray(np.full((8, 10 + i), i, np.uint8)).save(folder / f"{name}{i}.png")
    x = [str(folder / f"{name}{i}.png") for name, i in names]
    return Task("classification", "image", Domain("small", x, [name for name, _ in names]), tuple(counts))


INKS = [row(ink) for ink in ([0, 0, 0, 255], [0, 255, 0, 255], [0, 255, 0, 0], [0, 0, 255, 0])]  # white, red, black, blue
MODES = {  # name: (picture, suffix, options of save, the pixels in RGB, worked out by hand)
    "grey": (row([0, 7, 255]), "png", {}, [BLACK, [7] * 3, WHITE]),
    "RGBA": (row([[*RED, 255], [*RED, 128], [*RED, 0]]), "png", {}, [RED, [255, 127, 127], WHITE]),
    "grey with alpha": (Image.merge("LA", [row([0, 0, 0]), row([255, 128, 0])]), "png", {}, [BLACK, [127] * 3, WHITE]),
    "palette": (paletted(), "png", {}, [RED, BLUE]),
    "palette with a transparent entry": (paletted(), "png", {"transparency": 1}, [RED, WHITE]),
    "GIF with a transparent entry": (paletted(), "gif", {"transparency": 1}, [RED, WHITE]),
    "RGB with a transparent colour": (row([RED, BLUE]), "png", {"transparency": (0, 0, 255)}, [RED, WHITE]),
    "CMYK": (Image.merge("CMYK", INKS), "tif", {}, [WHITE, RED, BLACK, BLUE]),
    "16-bit PNG": (row([0, 255, 256, 65535], np.uint16), "png", {}, [BLACK, BLACK, [1] * 3, WHITE]),
    "16-bit TIFF": (row([0, 255, 256, 65535], np.uint16), "tif", {}, [BLACK, BLACK, [1] * 3, WHITE]),
    "1 bit": (row([False, True], bool), "png", {}, [BLACK, WHITE]),
    "floats": (row([-1.0, 0.0, 1.0], np.float32), "tif", {}, [BLACK, [128] * 3, WHITE]),
    "floats that are all equal": (row([0.25, 0.25], np.float32), "tif", {}, [BLACK, BLACK]),
    "32-bit integers": (row([-5, 0, 250], np.int32), "tif", {}, [BLACK, [5] * 3, WHITE]),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_the_rgb_that_its_pixels_mean(mode: str, tmp_path: Path) -> None:
    picture, suffix, options, expected = MODES[mode]
    picture.save(tmp_path / f"a.{suffix}", **options)
    pixels = image.read(tmp_path / f"a.{suffix}")
    assert pixels.dtype == np.uint8
    assert pixels.tolist() == [expected]


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_rotated_photograph_stands_upright(orientation: int, tmp_path: Path) -> None:
    with Image.open(jpeg(tmp_path / "as stored.jpg")) as stored:
        expected = UPRIGHT[orientation](np.asarray(stored))
    assert np.array_equal(image.read(jpeg(tmp_path / "turned.jpg", orientation=orientation)), expected)


def test_a_file_that_is_no_whole_image_is_refused_by_name(tmp_path: Path) -> None:
    whole = jpeg(tmp_path / "whole.jpg").read_bytes()
    for name, content in {"cut.jpg": whole[: len(whole) // 2], "text.jpg": b"no image at all", "empty.jpg": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name} cannot be read as an image \(.+\)\. Repair it or remove it\.$"):
            image.read(tmp_path / name)
    with pytest.raises(InputError, match=r"gone.jpg cannot be read as an image \(No such file"):
        image.read(tmp_path / "gone.jpg")


def test_arrays_of_every_legal_shape_and_kind_become_rgb() -> None:
    rgb = noise(3, 5)
    assert all(np.array_equal(image.read(rgb.astype(kind)), rgb) for kind in (np.uint8, np.uint16, np.int64))
    assert all(np.array_equal(image.read((rgb / 255).astype(kind)), rgb) for kind in (np.float16, np.float32, np.float64))
    assert all(np.array_equal(image.read(grey), np.stack([rgb[..., 0]] * 3, axis=2)) for grey in (rgb[..., 0], rgb[..., :1]))
    clear, opaque = (np.dstack([rgb, np.full((3, 5), alpha, np.uint8)]) for alpha in (0, 255))
    assert np.array_equal(image.read(opaque), rgb)
    assert (image.read(clear) == 255).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(4, np.uint8), r"has shape \(4,\); \(h, w\) or \(h, w, c\) with 1, 3 or 4 channels is needed"),
        (np.zeros((4, 4, 2), np.uint8), r"has shape \(4, 4, 2\)"),
        (np.zeros((1, 3, 4, 4), np.uint8), r"has shape \(1, 3, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"has shape \(0, 4, 3\)"),
        (np.full((2, 2), 255.0), r"is float64 from 255 to 255; uint8, or floats from 0 to 1, are needed. Rescale it."),
        (np.array([[0.5, -0.5]]), r"is float64 from -0.5 to 0.5"),
        (np.array([[0.5, np.nan]]), r"is float64 from nan to nan"),
        (np.array([[0, 256]]), r"is int64 from 0(\.0)? to 256"),
        (np.array([[-1, 0]]), r"is int64 from -1(\.0)? to 0"),
    ],
)
def test_an_array_of_another_shape_or_range_is_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        image.read(array)


def test_the_digest_is_of_a_files_bytes_or_of_an_arrays_values_shape_and_kind(tmp_path: Path) -> None:
    file, array = jpeg(tmp_path / "a.jpg"), noise(4, 6)
    assert image.digest(str(file)) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert image.digest(array) == image.digest(np.asfortranarray(array))
    assert len({image.digest(a) for a in (array, array ^ 1, array.reshape(6, 4, 3), array.view(np.int8))}) == 4
    with pytest.raises(InputError, match=r"gone.jpg cannot be read \(No such file"):
        image.digest(tmp_path / "gone.jpg")


def test_an_inspection_is_in_the_tasks_order_and_counts_modes_and_rotations(tmp_path: Path) -> None:
    task, seen = task_of(tmp_path, a=5, b=70), []
    x = [*task.target.x, str(jpeg(tmp_path / "turned.jpg", orientation=6)), noise(4, 6)]
    task = dataclasses.replace(task, target=Domain("more", x, [*task.target.y, "a", "b"]))
    same, found = image.inspect(task, progress=seen.append)
    assert (same is task, sum(seen)) == (True, 77)
    assert found.facts == {"Pixels": "6x4 to 79x8, median 42x8", "Modes": "L 75, RGB 1, array 1; 1 turned by EXIF"}
    assert found.unreadable == ()
    assert found.digests == tuple(image.digest(item) for item in x)


def test_an_unreadable_image_is_refused_or_left_out_by_name(tmp_path: Path) -> None:
    task = task_of(tmp_path, a=5, b=5)
    first, broken, *_ = map(Path, task.target.x)
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(InputError, match=r"a1.png cannot be read as an image \(.+\); 1 of 10 are unreadable.*--skip-unreadable"):
        image.inspect(task)
    rest, found = image.inspect(task, skip_unreadable=True)
    assert found.unreadable == (str(broken),)
    assert rest.target.x == [path for path in task.target.x if path != str(broken)]
    assert (rest.target.y, len(found.digests)) == (["a"] * 4 + ["b"] * 5, 9)
    first.write_text("text")
    with pytest.raises(InputError, match="Class 'a' has only 3 readable images after 2 unreadable were left out; at least 4 are needed"):
        image.inspect(task, skip_unreadable=True)


def test_folders_are_walked_in_order_and_files_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep.png").mkdir(parents=True)
    (tmp_path / "none").mkdir()
    for name in ("in/b.PNG", "in/a.jpg", "in/notes.txt", "in/deep.png/c.webp", "odd.raw"):
        (tmp_path / name).touch()
    listed = image.list_images([tmp_path / "odd.raw", tmp_path / "in"])
    assert listed == [str(tmp_path / name) for name in ("odd.raw", "in/a.jpg", "in/b.PNG", "in/deep.png/c.webp")]
    for folder, message in {"nowhere": "nowhere does not exist", "none": r"There are no images under .*none"}.items():
        with pytest.raises(InputError, match=message):
            image.list_images([tmp_path / folder])


@pytest.mark.parametrize(("shape", "size"), [((200, 400), (96, 48)), ((300, 100), (32, 96)), ((20, 30), (30, 20))])
def test_a_thumbnail_is_a_jpeg_whose_longest_side_is_at_most_96(shape: tuple[int, int], size: tuple[int, int]) -> None:
    head, _, body = image.thumbnail(noise(*shape)).partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(body, validate=True))) as small:
        small.load()
        assert (small.format, small.size) == ("JPEG", size)


@pytest.mark.parametrize("n", [0, 3, 50])
def test_mapping_keeps_the_order_and_reads_only_so_far_ahead(n: int) -> None:
    taken, lead = [], []
    mapped = image.mapped(lambda i: i * i, (taken.append(i) or i for i in range(n)), ahead=4)
    assert taken == []
    assert [lead.append(len(taken) - i) or value for i, value in enumerate(mapped)] == [i * i for i in range(n)]
    assert max(lead, default=0) <= 4

"""The doctor: every finding on planted data, and none on clean data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.core import Domain, InputError, Task
from headstart.doctor import diagnose
from headstart.terminal import Asked, diagnose_and_print
from headstart.twins import fingerprints, near_pairs, normalised

PER_CLASS = 16
SYLLABLES = "ba ce di fo gu ha ki lo mu ne pa ri so tu ve wo xa yi ze".split()


def vocabulary(seed: int) -> list[str]:
    """60 made-up words of four syllables."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(SYLLABLES, 4)) for _ in range(60)]


def photo(label: str, seed: int, *, side: int = 96) -> np.ndarray:
    """Smooth random colour fields; stripes lie across in one class and upright in the other."""
    rng = np.random.default_rng(seed)
    field = np.kron(rng.uniform(0, 255, size=(8, 8, 3)), np.ones((side // 8, side // 8, 1)))
    stripes = 60 * np.sin(np.arange(side) / 3 + rng.uniform(0, 6))
    return np.clip(field + (stripes[None, :, None] if label == "upright" else stripes[:, None, None]), 0, 255).astype(np.uint8)


def images(root: Path, *, per_class: int = PER_CLASS) -> Path:
    for c, label in enumerate(("across", "upright")):
        (root / label).mkdir(parents=True)
        for i in range(per_class):
            Image.fromarray(photo(label, 1000 * c + i)).save(root / label / f"{label}{i:03d}.png")
    return root


def texts(*, seed: int = 0, per_class: int = 20, words: tuple[int, int] = (1, 2)) -> Task:
    """Ten words each; the classes have words of their own."""
    rng = np.random.default_rng(seed)
    x = [" ".join(rng.choice(vocabulary(of), 10, replace=False)) for of in words for _ in range(per_class)]
    return Task("classification", "text", Domain("t", x, [label for label in "ab" for _ in range(per_class)]), ("a", "b"))


def table(*, n: int = 60, seed: int = 0, shift: float = 0.0) -> Task:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    a, b = rng.normal(size=n) + 6 * y + shift, rng.normal(size=n)
    rows = [{"a": float(u), "b": float(v), "c": "xy"[int(w)]} for u, v, w in zip(a, b, rng.integers(0, 2, n), strict=True)]
    return Task("classification", "tabular", Domain("t", rows, [str(v) for v in y]), ("0", "1"))


def found(diagnosis, kind):
    one = next((f for f in diagnosis.findings if f.kind == kind), None)
    assert one is not None, f"{kind} is not among {diagnosis.kinds()}"
    return one


def test_clean_images_give_no_finding(tmp_path):
    assert diagnose(Task.from_folder(images(tmp_path / "d"))).kinds() == ()


@pytest.mark.parametrize("task", [texts(), table()], ids=["texts", "table"])
def test_clean_texts_and_tables_give_no_finding(task):
    assert diagnose(task).kinds() == ()


def test_data_of_the_same_distribution_give_no_shift(tmp_path):
    assert diagnose(texts(), texts(seed=1)).kinds() == ()
    assert diagnose(table(), table(seed=1)).kinds() == ()


def test_a_resized_and_recompressed_copy_is_a_near_duplicate(tmp_path):
    root = images(tmp_path / "d")
    with Image.open(root / "across" / "across003.png") as picture:
        picture.resize((80, 80)).point(lambda v: int(v * 0.9 + 10)).save(root / "across" / "across900.jpg", quality=70)
    one = found(diagnose(Task.from_folder(root)), "near duplicates")
    assert one.where == ("across/across003.png = across/across900.jpg",)
    assert one.count == 1


def test_a_near_duplicate_under_another_label_is_a_contradiction(tmp_path):
    root = images(tmp_path / "d")
    with Image.open(root / "across" / "across003.png") as picture:
        picture.resize((80, 80)).save(root / "upright" / "upright900.png")
    assert found(diagnose(Task.from_folder(root)), "contradiction").where == ("across/across003.png = upright/upright900.png",)


def test_a_near_duplicate_in_another_group_is_a_leak(tmp_path):
    root = images(tmp_path / "d")
    with Image.open(root / "across" / "across003.png") as picture:
        picture.resize((80, 80)).save(root / "across" / "across900.png")
    task = Task.from_folder(root, group_by=r"(\d+)\.png")
    assert found(diagnose(task), "leak across groups").count == 1


def test_equal_files_and_equal_rows_are_duplicates(tmp_path):
    root = images(tmp_path / "d")
    (root / "across" / "across900.png").write_bytes((root / "across" / "across003.png").read_bytes())
    assert found(diagnose(Task.from_folder(root)), "duplicates").count == 1
    rows = table()
    x, y = [*rows.target.x, rows.target.x[3]], [*rows.target.y, rows.target.y[3]]
    again = found(diagnose(Task("classification", "tabular", Domain("t", x, y), ("0", "1"))), "duplicates")
    assert again.where == ("row 4 = row 61",)


def test_texts_that_differ_in_case_and_signs_are_near_duplicates():
    task = texts()
    x, y = [*task.target.x, task.target.x[2].upper() + "!!"], [*task.target.y, task.target.y[2]]
    assert found(diagnose(Task("classification", "text", Domain("t", x, y), task.labels)), "near duplicates").where == ("row 3 = row 41",)


def test_swapped_labels_are_suspected_and_named():
    task = table(n=240)
    wrong = [10, 33, 70]
    y = [v if i not in wrong else ("1" if v == "0" else "0") for i, v in enumerate(task.target.y)]
    one = found(diagnose(Task("classification", "tabular", Domain("t", task.target.x, y), ("0", "1"))), "label noise")
    named = {int(where.split()[1]) - 1 for where in one.where}
    assert set(wrong) <= named
    assert one.count <= len(wrong) + 3


def test_small_and_unequal_classes_are_told():
    task = table(n=120)
    kept = [i for i, v in enumerate(task.target.y) if v == "0" or i < 10]
    few = diagnose(Task("classification", "tabular", task.target.take(kept), ("0", "1")))
    assert found(few, "small class").where == ("1 5",)
    assert found(few, "imbalance").count == 5


def test_names_that_look_like_patients_are_told_unless_groups_are_given(tmp_path):
    for label in ("across", "upright"):
        (tmp_path / label).mkdir()
        for i in range(16):
            Image.fromarray(photo(label, 50 * len(label) + i)).save(tmp_path / label / f"patient{i // 4:02d}_{label}_{i}.png")
    one = found(diagnose(Task.from_folder(tmp_path)), "groups in names")
    assert one.count == 4
    assert "--group-by" in one.do
    assert "groups in names" not in diagnose(Task.from_folder(tmp_path, group_by=r"(patient\d+)")).kinds()


def test_grey_among_colour_and_small_among_large_images_are_told(tmp_path):
    root = images(tmp_path / "d")
    for i in range(6):
        Image.fromarray(photo("across", i + 300)).convert("L").resize((20, 20)).save(root / "across" / f"across8{i:02d}.png")
    kinds = diagnose(Task.from_folder(root)).kinds()
    assert "mixed colours" in kinds
    assert "mixed sizes" in kinds


def test_images_far_below_the_networks_input_are_told(tmp_path):
    for label in ("across", "upright"):
        (tmp_path / label).mkdir()
        for i in range(12):
            Image.fromarray(photo(label, 70 * len(label) + i, side=32)).save(tmp_path / label / f"{label}{i}.png")
    assert "small images" in diagnose(Task.from_folder(tmp_path)).kinds()


def test_what_will_be_predicted_from_elsewhere_is_a_shift():
    shifted = found(diagnose(table(), table(seed=1, shift=3.0)), "shift")
    assert "p = 0.005" in shifted.sure
    far = texts(seed=1, words=(3, 4))
    assert "shift" in diagnose(texts(), far).kinds()


def test_fingerprints_see_through_brightness_and_contrast_but_not_through_another_image():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(20, 3 * 32 * 32))
    x[7] = 0.3 * x[2] + 0.5
    assert near_pairs(fingerprints(x), least=0.97) == [(2, 7)]


def test_flat_images_are_like_nothing():
    assert near_pairs(fingerprints(np.full((9, 12), 0.5)), least=0.5) == []


def test_words_alone_count_in_a_normalised_text():
    assert normalised("  It's -- GOOD!") == "it s good"


def csv(path: Path, task: Task, *, labelled: bool) -> Path:
    rows = [f"{r['a']},{r['b']},{r['c']}" + (f",{y}" if labelled else "") for r, y in zip(task.target.x, task.target.y, strict=True)]
    path.write_text("\n".join(["a,b,c" + (",y" if labelled else ""), *rows]) + "\n")
    return path


@pytest.mark.parametrize("labelled", [True, False])
def test_the_command_compares_columns_that_both_files_have_and_prints_json(tmp_path, capsys, labelled):
    asked = Asked(csv(tmp_path / "own.csv", table(), labelled=True), Path(), "10s", 0, target="y", kind="classification")
    diagnose_and_print(asked, other=csv(tmp_path / "alike.csv", table(seed=1), labelled=labelled), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"n": 60, "things": "rows", "findings": []}
    diagnose_and_print(asked, other=csv(tmp_path / "far.csv", table(seed=1, shift=3.0), labelled=labelled), as_json=False)
    assert "What will be predicted differs from the training data" in capsys.readouterr().out


def test_a_path_at_which_nothing_lies_is_said_to_be_none(tmp_path):
    asked = Asked(csv(tmp_path / "own.csv", table(), labelled=True), Path(), "10s", 0, target="y", kind="classification")
    with pytest.raises(InputError, match="nosuch does not exist"):
        diagnose_and_print(asked, other=tmp_path / "nosuch", as_json=False)
    with pytest.raises(InputError, match="nosuch does not exist"):
        diagnose_and_print(dataclasses.replace(asked, data=tmp_path / "nosuch", target=None), other=None, as_json=False)


def grey_faces(root: Path, *, n: int = 24, seed: int = 0, negative: int = 0, gain: float = 1.0, offset: float = 0.0, side: int = 96) -> Path:
    """One scene in grey, each image with noise of its own; the last ``negative`` are turned, and all are scaled."""
    rng = np.random.default_rng(seed)
    scene = np.kron(np.random.default_rng(99).uniform(40, 215, size=(8, 8)), np.ones((side // 8, side // 8)))
    for i in range(n):
        label = "ab"[i % 2]
        (root / label).mkdir(parents=True, exist_ok=True)
        field = np.kron(rng.normal(0, 30, size=(16, 16)), np.ones((side // 16, side // 16)))
        shown = np.clip(scene + field, 0, 255)
        shown = 255 - shown if i >= n - negative else shown
        Image.fromarray(np.clip(shown * gain + offset, 0, 255).astype(np.uint8)).save(root / label / f"img{i:03d}.png")
    return root


def test_grey_images_of_one_scene_give_no_finding(tmp_path):
    assert not {"inverted images", "unlike photographs", "mixed depths"} & set(diagnose(Task.from_folder(grey_faces(tmp_path / "d"))).kinds())


def test_negatives_among_the_images_are_told_and_counted(tmp_path):
    assert found(diagnose(Task.from_folder(grey_faces(tmp_path / "d", negative=4))), "inverted images").count == 4


def test_images_of_twelve_bits_in_sixteen_are_told(tmp_path):
    assert found(diagnose(Task.from_folder(grey_faces(tmp_path / "d", gain=1 / 16))), "dark images").count == 24
    root = grey_faces(tmp_path / "e")
    for i in (3, 8, 21):
        path = next(root.rglob(f"img{i:03d}.png"))
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) << 4).save(path)
    assert found(diagnose(Task.from_folder(root)), "mixed depths").count == 3


def test_images_far_brighter_than_photographs_are_told(tmp_path):
    one = found(diagnose(Task.from_folder(grey_faces(tmp_path / "d", gain=0.2, offset=200.0))), "unlike photographs")
    assert "far brighter" in one.what


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"negative": 24}, "they look like negatives of the training images"),
        ({"gain": 1 / 16}, "was the bit depth read right?"),
        ({"side": 32}, "their shorter side is 32 pixels, and 96 in training"),
    ],
)
def test_what_will_be_predicted_and_was_made_otherwise_is_told(made, words, tmp_path):
    other = Task.unlabelled_from_folder(grey_faces(tmp_path / "other", seed=1, **made))
    assert words in found(diagnose(Task.from_folder(grey_faces(tmp_path / "own")), other), "preprocessing mismatch").what


def test_what_will_be_predicted_and_was_made_alike_is_no_mismatch(tmp_path):
    other = Task.unlabelled_from_folder(grey_faces(tmp_path / "other", seed=1))
    assert "preprocessing mismatch" not in diagnose(Task.from_folder(grey_faces(tmp_path / "own")), other).kinds()


def test_what_was_trained_on_is_found_among_what_will_be_predicted(tmp_path):
    root, new = images(tmp_path / "d"), tmp_path / "new"
    new.mkdir()
    for i in range(16):
        Image.fromarray(photo("across", 5000 + i)).save(new / f"new{i:02d}.png")
    with Image.open(root / "upright" / "upright007.png") as picture:
        picture.resize((80, 80)).save(new / "seen.jpg", quality=75)
    assert found(diagnose(Task.from_folder(root), Task.unlabelled_from_folder(new)), "seen in training").where == ("new/seen.jpg",)
    own, other = texts(), texts(seed=1)
    again = dataclasses.replace(other, target=Domain("o", [*other.target.x, own.target.x[4].upper()]))
    assert found(diagnose(own, again), "seen in training").where == ("row 41",)
    rows = table(seed=1)
    repeated = dataclasses.replace(rows, target=Domain("o", [*rows.target.x, table().target.x[9]]))
    assert found(diagnose(table(), repeated), "seen in training").where == ("row 61",)


def test_a_column_of_patients_is_told_unless_groups_are_given():
    task = table(n=120)
    rows = [{**row, "patient_id": i // 4} for i, row in enumerate(task.target.x)]
    one = dataclasses.replace(task, target=Domain("t", rows, task.target.y))
    assert "--group-by patient_id" in found(diagnose(one), "groups in columns").do
    grouped = dataclasses.replace(task, target=Domain("t", rows, task.target.y, [i // 4 for i in range(120)]))
    assert "groups in columns" not in diagnose(grouped).kinds()


def test_a_column_that_tells_the_label_is_a_leak():
    task = table(n=120)
    rows = [{**row, "ward": {"0": "north", "1": "south"}[y]} for row, y in zip(task.target.x, task.target.y, strict=True)]
    one = found(diagnose(dataclasses.replace(task, target=Domain("t", rows, task.target.y))), "leak in a column")
    assert "'ward'" in one.what

"""Nouns: folders become tasks, chains split at every cut, and what cannot be used is refused in one line."""

from pathlib import Path

import pytest
import torch
from torch import nn

from headstart.core import Backbone, Domain, InputError, Source, Task


def folder(root: Path, **counts: int) -> Path:
    for name, n in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(n):
            (root / name / f"{i:03d}.png").write_bytes(b"not opened here")
    return root


def test_a_folder_becomes_a_task_with_sorted_labels_and_one_target_per_image(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", zebra=4, ant=5)
    (root / "ant" / "notes.txt").write_text("no image")
    (root / "ant" / ".hidden.png").write_bytes(b"")
    task = Task.from_folder(root)
    assert task.labels == ("ant", "zebra")
    assert task.target.y == ["ant"] * 5 + ["zebra"] * 4
    assert task.codes == [0] * 5 + [1] * 4


def test_groups_come_from_the_path(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", a=4, b=4)
    assert Task.from_folder(root, group_by=r"/(\d\d)\d").target.groups == ["00"] * 8


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "has no class folders with images (it holds no images). Put the images of each class into a folder of its own."),
        ({"cat": 9}, "holds one class, 'cat'; at least 2 are needed. Add a folder for each other class."),
        ({"cat": 9, "dog": 0, "emu": 9}, "holds no images. Add images of class 'dog', or remove the folder."),
        ({"cat": 9, "dog": 1}, "Class 'dog' has only 1 ("),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    root = folder(tmp_path / "photos", **counts)
    root.mkdir(exist_ok=True)
    with pytest.raises(InputError) as caught:
        Task.from_folder(root)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_loose_images_are_counted_in_the_message(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="1 images lie in it directly"):
        Task.from_folder(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a folder"):
        Task.from_folder(tmp_path / "nowhere")


def test_a_group_expression_must_match_every_image(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", a=4, b=4)
    with pytest.raises(InputError, match=r"group_by 'a/.*' does not match b/000.png"):
        Task.from_folder(root, group_by="a/.*")
    with pytest.raises(InputError, match="not a regular expression"):
        Task.from_folder(root, group_by="(")


def test_targets_must_be_as_many_as_inputs() -> None:
    with pytest.raises(InputError, match="has 2 inputs but 1 targets"):
        Domain("d", ["a", "b"], ["x"])


def test_every_cut_splits_and_rejoins_exactly() -> None:
    torch.manual_seed(0)
    body = Backbone({f"s{i}": nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for i in range(3)}, dim=4)
    x = torch.randn(5, 4)
    assert body.cuts == ("input", "s0", "s1", "s2")
    for cut in range(4):
        assert torch.equal(body.above(cut)(body.below(cut)(x)), body(x))
    with pytest.raises(InputError, match="Cuts 0 to 9 do not lie in a chain of 3 stages"):
        body.below(9)


def test_a_source_without_a_model_says_so() -> None:
    with pytest.raises(InputError, match="Source 'data only' holds no model"):
        _ = Source("data only").backbone


def test_a_source_that_is_opened_in_inference_mode_can_still_be_trained():
    source = Source("s", opener=lambda: Backbone({"only": nn.Linear(3, 2)}, dim=2))
    with torch.inference_mode():
        assert source.backbone.dim == 2
    source.backbone.stages["only"](torch.ones(1, 3)).sum().backward()
    assert all(p.grad is not None for p in source.backbone.parameters())

"""What the README shows is what works: its Python runs, its commands and options exist, its files are there; the demo's images too."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ headstart")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def pictures(root: Path, n: int) -> None:
    generator = np.random.default_rng(0)
    for name, level in (("dark", 70), ("light", 180)):
        (root / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(generator.normal(level, 40, (32, 32, 3)).clip(0, 255).astype(np.uint8)).save(root / name / f"{i}.png")


def test_the_python_example_runs_as_printed_but_for_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "photos", 8)
    Image.new("RGB", (32, 32), (200, 200, 200)).save(tmp_path / "a.jpg")
    monkeypatch.chdir(tmp_path)
    first, second, third = blocks("python")
    assert 'budget="5m"' in first
    names: dict[str, object] = {}
    exec(first.replace('budget="5m"', 'budget="20s"'), names)
    assert (tmp_path / "runs" / "first" / "result.json").exists()
    images = np.stack([np.asarray(Image.open(p)) for p in sorted((tmp_path / "photos").rglob("*.png"))])
    labels = np.repeat(["dark", "light"], 8)
    exec(second, names | {"images": images, "labels": labels})
    pixels = images.reshape(16, -1)[:, ::64] / 255.0
    exec(third, {"X": pixels, "y": labels, "unlabelled": pixels + 0.1})


def test_every_command_and_option_of_the_readme_exists() -> None:
    assert {words[0] for words in commands()} == {"transfer", "adapt", "assess", "doctor", "predict", "report", "eject", "sources"}
    for words in commands():
        help_text = subprocess.run([sys.executable, "-m", "headstart", words[0], "--help"], capture_output=True, text=True, check=True).stdout
        assert all(word in help_text for word in words if word.startswith("--"))
    assert "--group-by" in README
    assert all((ROOT / link).exists() for link in re.findall(r"\]\((?!http)([^)#]+)\)", README))


def test_the_demo_writes_the_images_that_it_says(tmp_path: Path) -> None:
    demo = runpy.run_path(str(ROOT / "examples" / "demo.py"))
    demo["write_images"](tmp_path)
    for kind, (functional, defective, _) in demo["CELLS"].items():
        counts = {p.name: len(list(p.iterdir())) for p in (tmp_path / f"{kind}crystalline").iterdir()}
        assert counts == {"functional": functional, "defective": defective}

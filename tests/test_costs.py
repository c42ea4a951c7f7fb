"""What an input costs: remembered for these weights on this machine, and measured by running them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from headstart import listing, sources
from headstart.activations import costs
from headstart.activations.store import default_root
from headstart.core import Backbone, Preprocess, Source


class Slow(nn.Module):
    """Takes a known time for each input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.002 * len(x))
        return x.flatten(1)


def slow() -> Source:
    return Source("slow", opener=lambda: Backbone({"s": Slow()}, dim=3, preprocess=Preprocess(8, 1.0)), digest=lambda: "ab")


def test_a_cost_is_remembered_for_these_weights_on_this_machine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs.record(tmp_path, "ab", seconds=6.4, inputs=64)
    costs.record(tmp_path, "cd", seconds=64.0, inputs=64)
    assert costs.known(tmp_path) == {"ab": 0.1, "cd": 1.0}
    monkeypatch.setattr(costs, "machine", lambda: "another, 64 cores")
    assert costs.known(tmp_path) == {}
    costs.record(tmp_path, "ab", seconds=3.2, inputs=64)
    assert costs.known(tmp_path) == {"ab": 0.05}
    monkeypatch.undo()
    assert costs.known(tmp_path) == {"ab": 0.1, "cd": 1.0}


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"ab": 3}', "null"])
def test_a_damaged_memory_is_an_empty_one(content: str, tmp_path: Path) -> None:
    (tmp_path / costs.COSTS_FILE).write_text(content)
    assert costs.known(tmp_path) == {}
    costs.record(tmp_path, "ab", seconds=32.0, inputs=32)
    assert costs.known(tmp_path) == {"ab": 1.0}


def test_few_inputs_are_not_remembered(tmp_path: Path) -> None:
    costs.record(tmp_path, "ab", seconds=1.0, inputs=31)
    assert costs.known(tmp_path) == {}


def test_what_is_measured_is_the_time_that_an_input_takes() -> None:
    seconds, inputs = costs.measure(slow())
    assert 0.002 <= seconds / inputs < 0.02


def test_the_listing_measures_on_request_and_remembers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    monkeypatch.setattr(sources, "catalogue", lambda: [slow(), Source("absent", origin="pip install absent")])
    listing.print_sources(modality=None, as_json=True)
    assert [row["seconds_each"] for row in json.loads(capsys.readouterr().out)] == [None, None]
    listing.print_sources(modality=None, as_json=True, measure=True)
    measured = [row["seconds_each"] for row in json.loads(capsys.readouterr().out)]
    listing.print_sources(modality=None, as_json=True)
    assert [row["seconds_each"] for row in json.loads(capsys.readouterr().out)] == measured
    assert measured[0] >= 0.002
    assert measured[1] is None
    assert default_root() == tmp_path


def test_what_is_not_known_of_a_source_is_a_dash(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sources, "catalogue", lambda: [slow()])
    listing.print_sources(modality="image", as_json=False)
    shown = capsys.readouterr().out
    assert shown.splitlines()[2].split() == ["slow", *["-"] * 6, "yes"]
    assert "headstart sources --measure" in shown

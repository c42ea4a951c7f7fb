"""The activation store: what was written comes back bit for bit, and no kill, damage, race or full disk ever gives a wrong row."""

import errno
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from headstart.activations.store import Space, Store, _encoded, default_root, narrowed
from headstart.core import InputError

PROCESSES = multiprocessing.get_context("forkserver")  # they start in milliseconds, from a server without threads of ours
PROCESSES.set_forkserver_preload(["headstart.activations.store"])
KILLS = 80
FIELDS = {"weights": "ab", "cut": 3, "preprocess": {"size": 16, "crop": 0.9}}


def rows(digests: list[str], *, d: int = 64) -> np.ndarray:
    """The one right row of each digest, so that any reader can tell a wrong one."""
    return np.array([np.random.default_rng(list(one.encode())).standard_normal(d, dtype=np.float32) for one in digests])


def names(start: int, stop: int) -> list[str]:
    return [f"input {i}" for i in range(start, stop)]


def open_space(root: Path) -> Space:
    return Store(root).space(FIELDS)


def are_right(space: Space, digests: list[str], *, d: int = 64) -> bool:
    return space.read(digests).tobytes() == rows(digests, d=d).tobytes()


def there(space: Space, digests: list[str]) -> list[str]:
    return [digests[i] for i in sorted({*range(len(digests))} - {*space.missing(digests)})]


def write(root: Path, shards: list[list[str]]) -> None:
    for digests in shards:
        open_space(root).append(digests, rows(digests))


def write_for_ever(root: Path, start: int) -> None:
    for i in count(start, 8):
        open_space(root).append(names(i, i + 8), rows(names(i, i + 8), d=4096))


@contextmanager
def without_rights(folder: Path) -> Iterator[None]:
    """Nothing under ``folder`` can be reached; where root runs the tests, it is nobody for that long."""
    me = os.geteuid()
    folder.chmod(0o000)
    os.seteuid(me or 65534)
    try:
        yield
    finally:
        os.seteuid(me)
        folder.chmod(0o700)


def test_rows_come_back_bit_for_bit_in_the_order_that_was_asked(tmp_path: Path) -> None:
    values = np.array([[0.0, -0.0, np.inf], [np.nan, 1e-45, -np.inf], [np.pi, 65504, 1e38]], dtype=np.float32)
    space = open_space(tmp_path)
    space.append(["a", "b"], values[:2])
    space.append(["c"], values[2:])
    assert all(one.read(["c", "a", "b", "a"]).tobytes() == values[[2, 0, 1, 0]].tobytes() for one in (space, open_space(tmp_path)))
    maps = np.arange(24, dtype=np.float16).reshape(2, 3, 2, 2).transpose(0, 1, 3, 2)
    other = Store(tmp_path).space({"kind": "raw"})
    other.append(["a", "b"], maps)
    np.testing.assert_array_equal(other.read(["b", "a"]), maps[::-1], strict=True)


def test_equal_fields_in_any_order_are_one_space_and_any_other_field_is_another(tmp_path: Path) -> None:
    space = open_space(tmp_path)
    turned = {key: dict(reversed(v.items())) if isinstance(v, dict) else v for key, v in reversed(FIELDS.items())}
    assert Store(tmp_path).space(turned).folder == space.folder
    others = [FIELDS | other for other in ({"weights": "ac"}, {"cut": 4}, {"preprocess": {"size": 16, "crop": 0.875}}, {"view": 0})]
    assert len({Store(tmp_path).space(fields).folder for fields in [FIELDS, *others]}) == 5
    space.append(["a"], rows(["a"]))
    assert all(Store(tmp_path).space(fields).missing(["a"]) == [0] for fields in others)


def test_missing_names_the_first_of_equal_digests_and_reading_an_unknown_one_raises(tmp_path: Path) -> None:
    space = open_space(tmp_path)
    assert space.missing(["a", "b", "a", "c", "b"]) == [0, 1, 3]
    space.append(["b"], rows(["b"]))
    assert space.missing(["a", "b", "a", "c", "b"]) == [0, 3]
    with pytest.raises(KeyError, match="a"):
        space.read(["b", "a"])
    assert space.read([]).shape[0] == 0


def test_shards_are_mapped_and_of_two_precisions_read_together(tmp_path: Path) -> None:
    space = open_space(tmp_path)
    space.append(["a"], np.array([[0.5, 2.0]], dtype=np.float16))
    space.append(["b"], np.array([[1e6, 0.1]], dtype=np.float32))
    np.testing.assert_array_equal(space.read(["b", "a"]), np.array([[1e6, 0.1], [0.5, 2.0]], dtype=np.float32), strict=True)
    assert space.read(["a"]).dtype == np.float16
    assert all(type(shard.rows) is np.memmap and not shard.rows.flags.writeable for shard in space._shards)


def test_processes_that_append_equal_and_different_rows_at_once_leave_every_row_right(tmp_path: Path) -> None:
    shared = [names(i, i + 4) for i in range(0, 80, 4)]
    own = [[names(i, i + 6) for i in range(start, start + 60, 6)] for start in (40, 1000, 1030)]  # they overlap, in other shards
    writers = [PROCESSES.Process(target=write, args=(tmp_path, shared + shards)) for shards in own]
    early = open_space(tmp_path)
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert are_right(early, there(early, names(0, 80)))
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert all(are_right(one, names(0, 100) + names(1000, 1090)) for one in (early, open_space(tmp_path)))


def damaged(whole: bytes, body: int) -> Iterator[tuple[int, bytes]]:
    """Cut short at many places, and with one bit flipped in each byte of the header and in many of the rows."""
    dice = random.Random(0)
    for length in [0, 9, 10, 17, 18, body, len(whole) - 1, *dice.sample(range(len(whole)), 60)]:
        yield 0, whole[:length]
    for place in [*range(body), *dice.sample(range(body, len(whole)), 60)]:
        yield place, whole[:place] + bytes([whole[place] ^ 1 << dice.randrange(8)]) + whole[place + 1 :]


def test_a_damaged_shard_counts_as_missing_and_appending_again_heals_it(tmp_path: Path) -> None:
    digests = names(0, 5)
    write(tmp_path, [digests])
    (path,) = tmp_path.rglob("*.rows")
    whole, body = path.read_bytes(), path.stat().st_size - 5 * 64 * 4
    for place, content in damaged(whole, body):
        path.unlink()  # why: a file that changed in place would change under earlier maps of it, too
        path.write_bytes(content)
        space = open_space(tmp_path)
        if not body - 64 <= place < body:  # there may be padding, which need not be right
            assert space.missing(digests) == [0, 1, 2, 3, 4]
        if space.missing(digests):
            space.append(digests, rows(digests))
        assert all(are_right(one, digests) for one in (space, open_space(tmp_path)))


def test_a_writer_that_is_killed_at_any_moment_leaves_no_wrong_row(tmp_path: Path) -> None:
    for k in range(KILLS):
        before = len(list(tmp_path.rglob("*.rows")))
        writer = PROCESSES.Process(target=write_for_ever, args=(tmp_path, 1_000_000 * k))
        writer.start()
        while len(list(tmp_path.rglob("*.rows"))) == before:
            assert writer.is_alive()
        time.sleep(random.Random(k).uniform(0, 0.01))
        writer.kill()
        writer.join()
    space = open_space(tmp_path)
    (space.folder / ".x1y2.part").write_bytes(_encoded(["left"], rows(["left"]), ""))  # whole, but killed before it was published
    assert space.missing(["left"]) == [0]
    shards = len(list(space.folder.glob("*.rows")))
    present = there(space, [one for k in range(KILLS) for one in names(1_000_000 * k, 1_000_000 * k + 8 * shards)])
    assert len(present) == 8 * shards >= 8 * KILLS
    assert are_right(space, present, d=4096)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_line_and_leaves_nothing_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    space = open_space(tmp_path)
    space.append(["a"], rows(["a"]))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, Mock(side_effect=OSError(errno.ENOSPC, "full")))
        with pytest.raises(InputError, match=r"the disk is full \(.* MiB free\). Free space and run the same command again") as caught:
            space.append(["b"], rows(["b"]))
    assert "\n" not in str(caught.value)
    assert sorted(p.suffix for p in space.folder.iterdir()) == [".json", ".rows"]
    space.append(["b"], rows(["b"]))
    assert are_right(space, ["b", "a"])


@pytest.mark.parametrize("use", ["append", "missing", "read"])
def test_a_folder_that_cannot_be_reached_is_one_line(tmp_path: Path, use: str) -> None:
    space = open_space(tmp_path / "cache")
    space.append(["a"], rows(["a"]))
    with without_rights(tmp_path), pytest.raises(InputError, match="set HEADSTART_CACHE") as caught:
        getattr(open_space(tmp_path / "cache"), use)(["b"], *([rows(["b"])] if use == "append" else []))
    assert "\n" not in str(caught.value)
    assert sorted(p.suffix for p in space.folder.iterdir()) == [".json", ".rows"]
    with pytest.raises(InputError, match="Not a directory"):
        open_space(next(space.folder.glob("*.rows"))).append(["b"], rows(["b"]))


def test_the_store_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/there")
    for here, root in (("/here", "/here"), ("", "/there/headstart")):
        monkeypatch.setenv("HEADSTART_CACHE", here)
        assert default_root() == Path(root)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_root() == Path.home() / ".cache" / "headstart"


def test_the_narrowest_dtype_within_the_bound_is_stored_and_read_back(tmp_path: Path) -> None:
    space = open_space(tmp_path)
    dice = np.random.default_rng(0)
    kinds = {"float16": dice.standard_normal((3, 50)), "bfloat16": dice.standard_normal((3, 50)) * 1e6, "float32": np.ones((3, 50))}
    kinds["float32"][:, 0] = 1e30
    kinds["float32"][:, 1] = 0.9e30
    for name, values in kinds.items():
        bound = 2.0**-8 if name != "float32" else 2.0**-12
        values = values.astype(np.float32)
        assert narrowed(values, bound=bound)[1] == name
        digests = [f"{name} {i}" for i in range(3)]
        space.append(digests, values, bound=bound)
        error = np.abs(open_space(tmp_path).read(digests) - values).max(axis=1) / np.abs(values).max(axis=1)
        assert error.max() <= bound
    together = open_space(tmp_path).read(["float32 0", "float16 0", "bfloat16 0"])
    assert together.dtype == np.float32


def test_bfloat16_rounds_as_torch_does() -> None:
    import torch

    values = np.random.default_rng(0).standard_normal((5, 99)).astype(np.float32) * 1e6
    stored, kind = narrowed(values)
    assert kind == "bfloat16"
    assert np.array_equal(stored, torch.from_numpy(values).bfloat16().view(torch.uint16).numpy())


def test_rows_are_indexed_like_an_array_and_hold_nothing(tmp_path: Path) -> None:
    write(tmp_path, [names(0, 40), names(40, 90)])
    lazy, whole = open_space(tmp_path).rows(names(0, 90)), rows(names(0, 90))
    assert (len(lazy), lazy.shape, lazy.dtype) == (90, (90, 64), np.float32)
    for which in ([3, 80, 3], np.array([5]), slice(35, 45), np.arange(90) % 7 == 0):
        assert np.array_equal(np.asarray(lazy[which]), whole[which])
    assert np.array_equal(np.asarray(lazy[np.arange(50, 60)][[1, 2]]), whole[[51, 52]])


def test_the_store_keeps_its_bound_and_what_was_used_last(tmp_path: Path) -> None:
    size = len(_encoded(names(0, 4), rows(names(0, 4)), ""))
    store = Store(tmp_path, limit=int(3.5 * size))
    space = store.space(FIELDS)
    for i in range(3):
        space.append(names(4 * i, 4 * i + 4), rows(names(4 * i, 4 * i + 4)))
        time.sleep(0.01)
    for path in space.folder.glob("*.rows"):
        os.utime(path, (time.time() - 100,) * 2)
    reader = Store(tmp_path).space(FIELDS)
    first = next(p for p in space.folder.glob("*.rows") if b'input 0"' in p.read_bytes()[:400])
    os.utime(first)
    space.append(names(12, 16), rows(names(12, 16)))
    fresh = Store(tmp_path).space(FIELDS)
    kept = there(fresh, names(0, 16))
    assert set(names(0, 4)) | set(names(12, 16)) <= set(kept)
    assert len(kept) == 12
    assert sum(store.sizes().values()) <= store.limit
    assert reader.missing(names(0, 4)) == []


def test_a_reader_keeps_rows_that_were_evicted_under_it(tmp_path: Path) -> None:
    space = open_space(tmp_path)
    space.append(names(0, 4), rows(names(0, 4)))
    lazy = space.rows(names(0, 4))
    assert Store(tmp_path).clear() > 0
    assert np.array_equal(np.asarray(lazy), rows(names(0, 4)))
    assert open_space(tmp_path).missing(names(0, 4)) == [0, 1, 2, 3]


def test_clearing_removes_what_the_store_wrote_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, [names(0, 4)])
    mine = [tmp_path / "notes.txt", tmp_path / ("0" * 32) / "kept.txt"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    Store(tmp_path).clear()
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(mine)


def test_half_written_files_of_dead_writers_are_cleaned_and_young_ones_left(tmp_path: Path) -> None:
    write(tmp_path, [names(0, 4)])
    folder = open_space(tmp_path).folder
    old, young = folder / ".old.part", folder / ".young.part"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7 * 3600,) * 2)
    Store(tmp_path).trim()
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.parametrize("text", ["much", "-1", "nan"])
def test_a_bound_that_is_no_size_is_refused(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADSTART_CACHE_SIZE", text)
    with pytest.raises(InputError, match=rf"HEADSTART_CACHE_SIZE is '{text}'; a number of GiB is needed, such as 20."):
        Store(tmp_path)


def test_the_command_shows_sizes_by_source_and_clears(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import json

    from typer.testing import CliRunner

    from headstart.cli import app

    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    Store(tmp_path).space({"source": "net", "cut": 1}).append(["a"], rows(["a"]))
    shown = CliRunner().invoke(app, ["cache"]).output
    assert f"{tmp_path}: 0.0 MiB of at most 20,480.0 MiB" in shown
    assert "net" in shown
    plain = json.loads(CliRunner().invoke(app, ["cache", "--json"]).output)
    assert plain["sources"] == {"net": plain["bytes"]}
    assert "freed" in CliRunner().invoke(app, ["cache", "--clear"]).output
    assert json.loads(CliRunner().invoke(app, ["cache", "--json"]).output)["bytes"] == 0


FEW_FILES = """
import resource, sys
from pathlib import Path
import numpy as np
from headstart.activations.store import Store
from headstart.core import InputError
root, hard = Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (32, hard))
try:
    print(len(np.asarray(Store(root).space({"cut": 1}).rows([str(i) for i in range(60)]))))
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize(("hard", "says"), [(256, "60"), (32, "cannot be opened: this process may hold no more than 32 files. Allow it more")])
def test_more_shards_than_files_may_be_open_are_read_or_refused(tmp_path: Path, hard: int, says: str) -> None:
    space = Store(tmp_path).space({"cut": 1})
    for i in range(60):
        space.append([str(i)], np.full((1, 2), i, dtype=np.float32))
    done = subprocess.run([sys.executable, "-c", FEW_FILES, str(tmp_path), str(hard)], capture_output=True, text=True, check=True)
    assert says in done.stdout

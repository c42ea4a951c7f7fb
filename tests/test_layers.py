"""The shape of the package: imports go down only, files and functions stay short, and starting is light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src"
PACKAGE = "headstart"

# a room may import rooms on its own floor or below; the package's __init__ only lists names, and __main__ only calls cli
FLOOR = {
    **dict.fromkeys(("result", "distance", "assessment", "adaptation", "moments", "spectrum", "channels", "twins", "records", "cases"), 0),
    **dict.fromkeys(("findings", "verdicts", "fronts", "launched"), 0),
    "core": 1,
    **dict.fromkeys(("modality", "sources", "activations", "similarity", "methods", "guard"), 2),
    **dict.fromkeys(("train", "views", "runs", "forecast", "keeping", "freezing", "descent", "gradients", "crew", "validators"), 3),
    **dict.fromkeys(("learner", "evaluate", "choice", "rate_finder"), 4),
    **dict.fromkeys(("search", "ledger", "journal", "spaces", "proposing", "terms", "evidence", "bench", "pretrain", "outlook", "lending", "runners"), 5),
    **dict.fromkeys(("bounds", "gauge"), 5),
    "joint": 6,
    **dict.fromkeys(("plan", "walk", "several", "stacking", "judging", "pipeline", "doctor", "export", "estimator", "looking", "unlabelled", "appraisal"), 6),
    "adapting": 6,
    **dict.fromkeys(("contenders", "treatment"), 6),
    **dict.fromkeys(("serve", "report", "contract", "terminal", "crossing", "listing", "briefing", "contract_method", "ejected"), 7),
    "cli": 8,
}
DOORS = {"torchvision", "timm", "transformers", "PIL", "pandas", "pyarrow", "pydicom"}
EMPTY_NAMES = re.compile(r"(utils?|helpers?|common|misc|base\d*|manager|handlers?)(\.py)?")


def modules() -> dict[str, Path]:
    """Dotted names below the package, "" for its __init__, to their files."""
    paths = sorted((ROOT / PACKAGE).rglob("*.py"))
    return {".".join(part for part in p.relative_to(ROOT / PACKAGE).with_suffix("").parts if part != "__init__"): p for p in paths}


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Each absolute name that a file imports, at its top or inside a function, with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; name the module in full"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def inner(path: Path) -> Iterator[tuple[int, str]]:
    """Modules of the package that a file imports: ``core.Task`` is ``core``."""
    names = modules()
    for line, name in imported(path):
        parts = name.split(".")[1:] if name.split(".")[0] == PACKAGE else []
        while parts and ".".join(parts) not in names:
            parts.pop()
        if parts:
            yield line, ".".join(parts)


def room(module: str) -> str:
    return module.split(".")[0]


INNER = {name: path for name, path in modules().items() if name not in {"", "__main__"}}
EVERY = pytest.mark.parametrize("module", INNER)


@EVERY
def test_imports_go_down_only(module: str) -> None:
    assert room(module) in FLOOR, f"{module} is a new room: give it a floor in {Path(__file__).name}"
    upward = [f"line {line}: {other}" for line, other in inner(INNER[module]) if FLOOR[room(other)] > FLOOR[room(module)]]
    assert not upward


def test_modules_import_each_other_in_no_circle() -> None:
    # prepare() raises CycleError, which names the circle
    graph = {name: {other for _, other in inner(path)} - {name} for name, path in INNER.items()}
    TopologicalSorter(graph).prepare()
    assert len(graph) > 10


@EVERY
def test_only_modality_opens_files_or_imports_a_model_zoo(module: str) -> None:
    found = {f"line {line}: {name}" for line, name in imported(INNER[module]) if name.split(".")[0] in DOORS}
    assert not found or room(module) == "modality"


@pytest.mark.parametrize("module", modules())
def test_files_and_functions_are_short_enough_to_read(module: str) -> None:
    text = modules()[module].read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
            assert length <= 60, f"{node.name} has {length} lines without its docstring"


def test_every_name_says_something() -> None:
    parts = {part for path in modules().values() for part in path.relative_to(ROOT).parts}
    assert not [part for part in parts if EMPTY_NAMES.fullmatch(part)]


@EVERY
def test_the_package_neither_asserts_nor_catches_what_it_cannot_name(module: str) -> None:
    for node in ast.walk(ast.parse(INNER[module].read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: users get InputError"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: bare except"
            assert getattr(node.type, "id", "") not in {"Exception", "BaseException"}, f"line {node.lineno}: catches what it cannot name"


@pytest.mark.parametrize(
    "code",
    ["import headstart", "import headstart.result", "import sys; sys.argv = ['headstart', '--help']\nfrom headstart.cli import main\nmain()"],
    ids=["package", "result", "help"],
)
def test_starting_does_not_wait_for_pytorch(code: str) -> None:
    heavy = "('torch', 'numpy', 'sklearn', 'scipy', 'timm', 'optuna', 'ray')"
    ask = f"import sys\ntry:\n    exec({code!r})\nexcept SystemExit: pass\nprint([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

"""A finished run as one plain script: the shipped model, trained and measured again without Headstart.

Everything that a run decided stands in the script as a number; what is long (which inputs were trained on, the source's weights) is read from the run's folder.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from headstart.core import InputError
from headstart.ejected.facts import facts
from headstart.export import read_result
from headstart.result import Result

TEMPLATE = "script.py.j2"


def eject(run: Result | str | Path, out: str | Path | None = None) -> Path:
    """Write a run as a script of plain PyTorch and scikit-learn, which trains the shipped model again and prints its held-out score.

    Parameters
    ----------
    run : the folder of a finished run; or a result, which is then saved beside the script, in a folder of its name that ends in .run
    out : the script; default: ``eject.py`` in the run's folder

    Returns
    -------
    The script. It reads ``cases.csv`` and the source's weights, whose hash it checks, from the run's folder; training is that of the run up to rounding.

    Raises
    ------
    InputError
        no finished run lies there; its inputs were arrays or rows of a table, or its targets numbers; what it ships is a method with a loss or a schedule
        of its own, or a network that no library builds by name; the script cannot be written.
    """
    if isinstance(run, Result):
        if out is None:
            raise InputError("A result alone lies in no folder. Say where the script goes: hs.eject(result, 'script.py').")
        folder = run.save(Path(out).with_suffix(".run"))
    else:
        folder = Path(run)
    result = read_result(folder)
    script = Path(out) if out is not None else folder / "eject.py"
    text = _rendered(facts(result, folder.absolute()))
    try:
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{script} cannot be written ({error.strerror}). Choose another --out.") from None
    return script


def _rendered(known: dict[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    room = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False)
    room.filters["python"] = repr
    room.filters["plain"] = lambda words: words.replace('"', "'").replace("\\", "/")  # why: it stands in a docstring
    text = room.from_string(files("headstart.ejected").joinpath(TEMPLATE).read_text(encoding="utf-8")).render(**known)
    compile(text, TEMPLATE, "exec")
    return text

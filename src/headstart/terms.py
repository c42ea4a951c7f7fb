"""What a user asks of a search: who proposes, how many trials, in which folds, and where it starts from."""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.core import InputError
from headstart.proposing import WORDS


@dataclass(frozen=True)
class Terms:
    """The terms of a search.

    Parameters
    ----------
    search : one of ``proposing.WORDS``; "", the default, follows the plan of ``headstart.plan``
    trials : most candidates that are tried on sources, their first probes among them; ``None`` leaves it to the budget. Of many sources some may still be
        without a probe by then: their probes come on top, so that all are ranked. Asks for ``search``
    folds : in which settings are compared. "5" (the default) is five stratified folds, "3x5" the same three times, shuffled anew, and "0.2" one split that
        validates on a fifth. Groups and exact duplicates stay whole in each. Judging is nested whatever is asked: in each of its own folds source and
        setting are chosen anew without that fold's cases
    prior : folder of a past run whose best settings are tried first, or ``None``. Asks for ``search``

    Raises
    ------
    InputError
        a term that cannot be read, in one line.

    Examples
    --------
    >>> Terms(folds="3x5").divisions, Terms(folds="0.2").divisions
    ((3, 5), (1, 0.2))
    """

    search: str = ""
    trials: int | None = None
    folds: str = "5"
    prior: str | Path | None = None

    def __post_init__(self) -> None:
        if self.search and self.search not in WORDS:
            near = difflib.get_close_matches(self.search, WORDS, n=1)
            raise InputError(f"There is no search {self.search!r}. {f'Did you mean {near[0]}?' if near else 'There are ' + ', '.join(WORDS) + '.'}")
        for name in ("trials", "prior"):
            if getattr(self, name) is not None and not self.search:
                raise InputError(f"--{name} is a term of a search. Name one, such as --search bayes.")
        if self.trials is not None and self.trials < 1:
            raise InputError(f"--trials {self.trials} tries nothing. Give 1 or more.")
        _ = self.divisions  # why: a term that cannot be read is told before any file is

    @property
    def divisions(self) -> tuple[int, int | float]:
        """Repeats, and folds of each; or 1, and the share of one validation split."""
        text = self.folds.strip().lower()
        if re.fullmatch(r"0?\.\d+", text) and 0 < float(text) < 1:
            return 1, float(text)
        if found := re.fullmatch(r"(?:(\d+)\s*x\s*)?(\d+)", text):
            repeats, k = int(found[1] or 1), int(found[2])
            if repeats >= 1 and k >= 2:
                return repeats, k
        raise InputError(f"--folds {self.folds} cannot be read. Write 5 for five folds, 3x5 for three times five, 0.2 for one split that validates on a fifth.")

    def changed(self) -> dict[str, Any] | None:
        """Return the terms that are not the defaults, as plain values; ``None`` where all are."""
        named = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
        return {name: str(value) if isinstance(value, Path) else value for name, value in named.items()} or None

"""What the data doctor finds: suspicions in words, with where and how sure. Only the standard library is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHOWN = 12  # cases that a finding names


@dataclass(frozen=True)
class Finding:
    """One suspicion: ``kind`` for programs, ``what`` in words, ``where`` names the first cases of ``count``, ``sure`` says how sure, ``do`` what to do."""

    kind: str
    what: str
    where: tuple[str, ...]
    count: int
    sure: str
    do: str

    def __str__(self) -> str:
        such = f" Such as {', '.join(self.where[:3])}." if self.where else ""
        return f"{self.what} ({self.sure}).{such} {self.do}"


@dataclass(frozen=True)
class Diagnosis:
    """All findings about ``n`` cases, the gravest first; none means that nothing was suspected, not that nothing is wrong."""

    n: int
    things: str
    findings: tuple[Finding, ...]

    def kinds(self) -> tuple[str, ...]:
        """The kinds that were found."""
        return tuple(f.kind for f in self.findings)

    def __str__(self) -> str:
        head = f"{self.n} {self.things}: " + (f"{len(self.findings)} findings." if self.findings else "nothing suspicious.")
        return "\n".join([head, *(f"- {f}" for f in self.findings)])


def finding(kind: str, what: str, where: Sequence[str], count: int, sure: str, do: str) -> Finding:
    """Return a finding that names no more cases than a person reads."""
    return Finding(kind, what, tuple(where[:SHOWN]), count, sure, do)

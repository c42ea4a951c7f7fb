"""Headstart: transfer learning that proves it helped.

>>> import headstart as hs
>>> hs.parse_budget("5m")
300.0
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart import sources as sources
    from headstart.adaptation import Adaptation as Adaptation
    from headstart.adapting import adapt as adapt
    from headstart.appraisal import assess as assess
    from headstart.assessment import Assessment as Assessment
    from headstart.bounds import Bounds as Bounds
    from headstart.core import Backbone as Backbone
    from headstart.core import Domain as Domain
    from headstart.core import InputError as InputError
    from headstart.core import Source as Source
    from headstart.core import Task as Task
    from headstart.doctor import Diagnosis as Diagnosis
    from headstart.doctor import diagnose as diagnose
    from headstart.ejected import eject as eject
    from headstart.estimator import TransferClassifier as TransferClassifier
    from headstart.export import load as load
    from headstart.guard import judge as judge
    from headstart.keeping import Settings as Settings
    from headstart.lending import lend as lend
    from headstart.methods import METHODS as METHODS
    from headstart.modality.table import task_from_table as task_from_table
    from headstart.pipeline import transfer as transfer
    from headstart.result import Result as Result
    from headstart.runs import parse_budget as parse_budget
    from headstart.several import multitask as multitask
    from headstart.terms import Terms as Terms

__version__ = "0.1.0"

# why: names load on first use (PEP 562), so that importing the package, and `headstart --help`, never waits for PyTorch
_HOME = {
    "Adaptation": "adaptation",
    "Assessment": "assessment",
    "Backbone": "core",
    "Bounds": "bounds",
    "Diagnosis": "doctor",
    "Domain": "core",
    "InputError": "core",
    "METHODS": "methods",
    "Result": "result",
    "Settings": "keeping",
    "Source": "core",
    "Task": "core",
    "Terms": "terms",
    "TransferClassifier": "estimator",
    "adapt": "adapting",
    "assess": "appraisal",
    "diagnose": "doctor",
    "eject": "ejected",
    "judge": "guard",
    "lend": "lending",
    "load": "export",
    "multitask": "several",
    "parse_budget": "runs",
    "task_from_table": "modality.table",
    "transfer": "pipeline",
}

__all__ = [
    "METHODS",
    "Adaptation",
    "Assessment",
    "Backbone",
    "Bounds",
    "Diagnosis",
    "Domain",
    "InputError",
    "Result",
    "Settings",
    "Source",
    "Task",
    "Terms",
    "TransferClassifier",
    "adapt",
    "assess",
    "diagnose",
    "eject",
    "judge",
    "lend",
    "load",
    "multitask",
    "parse_budget",
    "sources",
    "task_from_table",
    "transfer",
]


def __getattr__(name: str) -> Any:
    if name == "sources":
        return importlib.import_module("headstart.sources")
    if name not in _HOME:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"headstart.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""Deep domain adaptation in the one loop: labels in one domain, unlabelled cases of another beside them in every batch.

``DEEP`` is the one table of them, by name; ``SourceOnly`` is the same training without the second domain, against which they are measured. They are fitted by
``learner.learn(Candidate(DEEP["dann"](), source), ..., target=Target(rows))``, and transfer, which has one domain, does not try them.
"""

from __future__ import annotations

from headstart.methods.relations.deep.adabn import AdaBN
from headstart.methods.relations.deep.afn import AFN
from headstart.methods.relations.deep.cdan import CDAN
from headstart.methods.relations.deep.contrastive import Contrastive
from headstart.methods.relations.deep.dan import DAN, JAN
from headstart.methods.relations.deep.dann import BSP, DANN
from headstart.methods.relations.deep.deep import Deep
from headstart.methods.relations.deep.deep_coral import DeepCORAL
from headstart.methods.relations.deep.deep_jdot import DeepJDOT
from headstart.methods.relations.deep.disagreement import MCD, MDD
from headstart.methods.relations.deep.mcc import MCC
from headstart.methods.relations.deep.rkd import RKD
from headstart.methods.relations.deep.self_training import FixMatch, SelfTraining
from headstart.methods.relations.deep.source_free import SHOT, TENT, SourceFree
from headstart.methods.relations.deep.source_only import OwnStatistics, SourceOnly

DEEP: dict[str, type[Deep]] = {
    method.name: method
    for method in (
        DAN,
        JAN,
        DeepCORAL,
        DeepJDOT,
        DANN,
        CDAN,
        BSP,
        MDD,
        MCD,
        MCC,
        AFN,
        AdaBN,
        SelfTraining,
        FixMatch,
        Contrastive,
        RKD,
        SHOT,
        TENT,
    )
}

__all__ = [
    "AFN",
    "BSP",
    "CDAN",
    "DAN",
    "DANN",
    "DEEP",
    "JAN",
    "MCC",
    "MCD",
    "MDD",
    "RKD",
    "SHOT",
    "TENT",
    "AdaBN",
    "Contrastive",
    "Deep",
    "DeepCORAL",
    "DeepJDOT",
    "FixMatch",
    "OwnStatistics",
    "SelfTraining",
    "SourceFree",
    "SourceOnly",
]

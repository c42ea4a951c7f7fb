"""Deep domain adaptation in the one loop: labels in one domain, unlabelled cases of another beside them in every batch.

``DEEP`` is the one table of them, by name; ``SourceOnly`` is the same training without the second domain, against which they are measured. They are fitted by
``learner.learn(Candidate(DEEP["dann"](), source), ..., target=Target(rows))``, and transfer, which has one domain, does not try them.
"""

from __future__ import annotations

from headstart.methods.relations.deep.afn import AFN
from headstart.methods.relations.deep.dan import DAN
from headstart.methods.relations.deep.dann import DANN
from headstart.methods.relations.deep.deep import Deep
from headstart.methods.relations.deep.deep_coral import DeepCORAL
from headstart.methods.relations.deep.mcc import MCC
from headstart.methods.relations.deep.source_only import SourceOnly

DEEP: dict[str, type[Deep]] = {method.name: method for method in (DAN, DeepCORAL, DANN, MCC, AFN)}

__all__ = ["AFN", "DAN", "DANN", "DEEP", "MCC", "Deep", "DeepCORAL", "SourceOnly"]

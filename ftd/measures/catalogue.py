"""The measures that are always there, besides the Fisher task distance: what each declares.

Each is explained in the module that makes it. Nothing here imports torch or numpy: the workflow is
parsed in every job.
"""

import math
from typing import Any, Literal

from ftd.config.base import Section
from ftd.measures import Combination, FisherTask, Measure
from ftd.parts import MEASURES, register_measure

_CLASSES = ("classes",)
_SEEN = {"source": ("weights",), "target": ("data",), "kinds": _CLASSES, "group": "seen"}
_UP = {"nearer": "higher"}
_SHARE = {"lowest": 0.0, "highest": 1.0}
_PASS = "a forward pass"
_FACTORED = (
    "a forward pass, eigenvalues of [F, F] or [N, N] (shared by LogME, H-scores, linear probe)"
)
_OWN = ", and the target's own probe"

register_measure(
    "leep",
    Measure(
        "ftd.measures.leep:LEEP",
        **_SEEN,
        **_UP,
        lowest=-math.inf,
        highest=0.0,
        cost=_PASS,
        reference="Nguyen, Hassner, Seeger, Archambeau 2020, section 3",
    ),
)
register_measure(
    "nce",
    Measure(
        "ftd.measures.nce:NCE",
        **_SEEN,
        **_UP,
        lowest=-math.inf,
        highest=0.0,
        cost=_PASS,
        reference="Tran, Nguyen, Hassner 2019, negative conditional entropy",
    ),
)
register_measure(
    "logme",
    Measure(
        "ftd.measures.logme:LOGME",
        **_SEEN,
        **_UP,
        lowest=-math.inf,
        highest=math.inf,
        cost=_FACTORED,
        reference="You, Liu, Wang, Long 2021, maximum evidence",
    ),
)
register_measure(
    "hscore",
    Measure(
        "ftd.measures.hscore:HSCORE",
        **_SEEN,
        **_UP,
        lowest=0.0,
        highest=math.inf,
        cost=_FACTORED,
        reference="Bao, Li, Huang, Zhang, Zheng, Zamir, Guibas 2019, H(f)",
    ),
)
register_measure(
    "hscore-shrunk",
    Measure(
        "ftd.measures.hscore:HSCORE_SHRUNK",
        **_SEEN,
        **_UP,
        lowest=0.0,
        highest=math.inf,
        cost=_FACTORED,
        reference="Ibrahim, Ponomareva, Mazumder 2022, shrinkage-based H-score",
    ),
)
register_measure(
    "cka-labels",
    Measure(
        "ftd.measures.cka:LABELS",
        **_SEEN,
        **_UP,
        **_SHARE,
        cost=_PASS,
        reference="Kornblith, Norouzi, Lee, Hinton 2019, linear CKA, with one-hot labels",
    ),
)
register_measure(
    "cka-features",
    Measure(
        "ftd.measures.cka:Features",
        **_SEEN | {"target": ("data", "weights")},
        **_UP,
        **_SHARE,
        cost=_PASS + _OWN,
        reference="Kornblith, Norouzi, Lee, Hinton 2019, linear CKA",
    ),
)
register_measure(
    "linear-probe",
    Measure(
        "ftd.measures.linear_probe:LINEAR_PROBE",
        **_SEEN,
        **_UP,
        **_SHARE,
        cost=_FACTORED,
        reference="after Alain, Bengio 2017; ridge regression, five folds",
    ),
)
register_measure(
    "knn",
    Measure(
        "ftd.measures.knn:KNN",
        **_SEEN,
        **_UP,
        **_SHARE,
        cost="a forward pass, similarities [N, N]",
        reference="Cover, Hart 1967; cosine, five neighbours, leave-one-out",
    ),
)

_FACTS = {"source": ("facts",), "target": (), "cost": "nothing", "reference": "baseline"}
register_measure(
    "classes",
    Measure("ftd.measures.baselines:CLASSES", **_FACTS, **_UP, lowest=0.0, highest=math.inf),
)
register_measure(
    "source-accuracy",
    Measure("ftd.measures.baselines:SOURCE_ACCURACY", **_FACTS, **_UP, **_SHARE),
)

_FISHER = {
    "source": ("weights",),
    "target": ("fisher", "data"),
    "squared": True,
    "common_start": True,
}
_AS_FISHER = {
    **_FISHER,
    **_SHARE,
    "zero_to_itself": True,
    "answers": True,
    "cost": "a forward and a backward pass" + _OWN,
}
_OF_LE = "Le, Soltani, Dong, Tarokh 2022, section III"


class FisherMatching(Section):
    """The Fisher task distance with outputs matched to labels by what they say."""

    align: Literal["matching"] = "matching"


register_measure(
    "fisher-matching",
    Measure(
        "ftd.measures.fisher_task:FisherTaskDistance",
        **_AS_FISHER,
        layers=True,
        settings=FisherMatching,
        kinds=_CLASSES,
        reference=_OF_LE + ", outputs matched to labels",
    ),
)
register_measure(
    "fisher-body",
    Measure(
        "ftd.measures.fisher_parts:BODY",
        **_AS_FISHER,
        settings=FisherTask,
        reference=_OF_LE + ", over the body",
    ),
)
register_measure(
    "fisher-layers",
    Measure(
        "ftd.measures.fisher_parts:LAYERS",
        **_AS_FISHER,
        layers=True,
        settings=FisherTask,
        reference=_OF_LE + ", mean over layers",
    ),
)
register_measure(
    "fisher-own",
    Measure(
        "ftd.measures.fisher_parts:Own",
        **_SHARE,
        source=("fisher",),
        target=("fisher",),
        squared=True,
        common_start=True,
        zero_to_itself=True,
        cost="no pass" + _OWN,
        reference=_OF_LE + ", of F_aa and F_bb over the body",
    ),
)
register_measure(
    "fisher-refit",
    Measure(
        "ftd.measures.fisher_refit:Refit",
        **_FISHER,
        **_SHARE,
        cost="two forward passes and a backward one, a head fitted" + _OWN,
        reference=_OF_LE + ", over the body, the source's head fitted to the target",
    ),
)
register_measure(
    "task-affinity",
    Measure(
        "ftd.measures.affinity:TaskAffinity",
        **_SHARE,
        source=("weights", "fisher", "data"),
        target=("data",),
        squared=True,
        zero_to_itself=True,
        kinds=_CLASSES,
        cost="two forward passes and a backward one, a forward pass on the source's images",
        reference="Le, Dong, Soltani, Tarokh 2022 (ICLR)",
    ),
)
register_measure(
    "task2vec",
    Measure(
        "ftd.measures.task2vec:Task2Vec",
        **_SHARE,
        source=("embedding",),
        target=("embedding",),
        zero_to_itself=True,
        kinds=_CLASSES,
        cost="no pass; a task's embedding, once: a backward pass a label, a head fitted",
        reference="Achille et al. 2019, symmetric distance; of the common start",
    ),
)

_MOVES = {"lowest": -1.0, "highest": 1.0, "common_start": True, "cost": "no pass" + _OWN, **_UP}
register_measure(
    "displacement",
    Measure(
        "ftd.measures.displacement:PLAIN",
        source=("weights",),
        target=("weights", "start"),
        **_MOVES,
        reference="cosine of task vectors, Ilharco et al. 2023; over the body",
    ),
)
register_measure(
    "displacement-fisher",
    Measure(
        "ftd.measures.displacement:BY_FISHER",
        source=("weights", "fisher"),
        target=("weights", "start", "fisher"),
        **_MOVES,
        reference="the same in the metric F_aa + F_bb",
    ),
)


def _mean_rank(numbers: dict[str, Any]) -> Any:
    from ftd.measures.ranks import mean_rank  # numpy and SciPy: seconds that registering would pay

    return mean_rank(numbers, {name: MEASURES.get(name).nearer for name in numbers})


for _name, _of, _said in (
    ("leep-logme", ("leep", "logme"), "LEEP and LogME"),
    ("cka-logme", ("cka-labels", "logme"), "CKA with labels and LogME"),
    (
        "cka-logme-displacement",
        ("cka-labels", "logme", "displacement"),
        "CKA with labels, LogME and the cosine of displacements",
    ),
    (
        "cka-logme-displacement-fisher",
        ("cka-labels", "logme", "displacement-fisher"),
        "CKA with labels, LogME and displacements in the metric F_aa + F_bb",
    ),
):
    register_measure(
        _name, Combination(_of, _mean_rank, 1.0, math.inf, reference=f"mean rank of {_said}")
    )

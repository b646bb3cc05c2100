"""Fisher information of any network: its exact diagonal, and Kronecker factors beside it."""

from ftd.fisher.engine import fisher_diagonal
from ftd.fisher.estimators import ESTIMATORS, Spread
from ftd.fisher.layers import FORMULAS, Formula

__all__ = ["ESTIMATORS", "FORMULAS", "Formula", "Spread", "fisher_diagonal"]

"""The ways of ranking weights, in words: what people choose from, without loading torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Needs(StrEnum):
    """What a criterion has to see of the training data.

    `NOTHING`: the weights are enough. `INPUTS`: what flows into each layer, from `train`, without
    its labels. `GRADIENTS`: the loss of labelled samples of `train`. `UNKNOWN`: an operator's own
    criterion, which only the worker has loaded.
    """

    NOTHING = "nothing"
    INPUTS = "inputs"
    GRADIENTS = "gradients"
    UNKNOWN = "unknown"

    @property
    def data(self) -> bool:
        """May it need the split `train`?"""
        return self is not Needs.NOTHING


@dataclass(frozen=True)
class CriterionFacts:
    """One criterion for people. `description`: a sentence or two; `source`: paper, year, equation.

    `rewrites`: the weights that stay are changed too, so that masks alone don't tell the result.
    """

    name: str
    title: str
    description: str
    source: str
    needs: Needs = Needs.NOTHING
    rewrites: bool = False


_ALL = (
    CriterionFacts(
        "magnitude",
        "Magnitude",
        "Small weights leave first.",
        "Han, Pool, Tran and Dally, Learning both weights and connections (2015), section 3: |w|.",
    ),
    CriterionFacts(
        "random",
        "Random",
        "Weights leave in an order drawn by lot: what every other criterion has to beat.",
        "Baseline: uniform scores, drawn from the seed and the unit's id.",
    ),
    CriterionFacts(
        "lamp",
        "LAMP",
        "Magnitude, scaled by the weights of the layer that are at least as large. Within a layer "
        "its order is that of magnitude, so its curves are too; it differs only where weights of "
        "several layers are ranked together.",
        "Lee, Park, Mo, Ahn and Shin, Layer-adaptive sparsity for the magnitude-based pruning "
        "(2021), equation 2: w_u^2 / sum of w_v^2 over v >= u.",
    ),
    CriterionFacts(
        "taylor",
        "Taylor",
        "Weights leave first whose removal changes the loss of a sample least, to first order. For "
        "single weights its order is that of Fisher; the two differ where weights leave in groups.",
        "Molchanov, Mallya, Tyree, Frosio and Kautz, Importance estimation for neural network "
        "pruning (2019), equation 8: mean over samples of (g w)^2.",
        Needs.GRADIENTS,
    ),
    CriterionFacts(
        "fisher",
        "Fisher",
        "Weights leave first whose removal raises the loss least, to second order, with the "
        "Fisher information's diagonal for the curvature.",
        "LeCun, Denker and Solla, Optimal brain damage (1989), equation 5, with the curvature of "
        "Theis, Korshunova, Tejani and Huszar (2018), equation 6: E[g^2] w^2 / 2.",
        Needs.GRADIENTS,
    ),
    CriterionFacts(
        "snip",
        "SNIP",
        "Weights leave first on whose presence the mean loss depends least.",
        "Lee, Ajanthan and Torr, SNIP: single-shot network pruning (2019), equation 6: |g w| of "
        "the mean gradient.",
        Needs.GRADIENTS,
    ),
    CriterionFacts(
        "wanda",
        "Wanda",
        "In each output row, weights leave first that are small and meet small inputs; every row "
        "loses equally many.",
        "Sun, Liu, Bair and Kolter, A simple and effective pruning approach for large language "
        "models (2023), equation 1: |W_ij| norm2(X_j), ranked within row i.",
        Needs.INPUTS,
    ),
    CriterionFacts(
        "sparsegpt",
        "SparseGPT, order only",
        "Weights leave first that the others could best make up for, given the layer's inputs; the "
        "others stay as they are.",
        "Frantar and Alistarh, SparseGPT (2023), section 3 and algorithm 1: "
        "w^2 / [chol(H^-1)]_jj^2, H = 2 X X^T, damping 1 %.",
        Needs.INPUTS,
    ),
    CriterionFacts(
        "sparsegpt-update",
        "SparseGPT",
        "As SparseGPT, and the weights that stay are changed to make up for those that left.",
        "Frantar and Alistarh, SparseGPT (2023), algorithm 1, in blocks of 128 columns, "
        "damping 1 %.",
        Needs.INPUTS,
        rewrites=True,
    ),
    CriterionFacts(
        "filter-l1",
        "Filter, L1 norm",
        "Whole filters leave, those of the smallest weights first.",
        "Li, Kadav, Durdanovic, Samet and Graf, Pruning filters for efficient ConvNets (2017), "
        "section 3.1: sum of |w| of a filter.",
    ),
    CriterionFacts(
        "filter-l2",
        "Filter, L2 norm",
        "Whole filters leave, those of the smallest Euclidean norm first.",
        "He, Kang, Dong, Fu and Yang, Soft filter pruning (2018), equation 2 with p = 2.",
    ),
    CriterionFacts(
        "bn-scale",
        "Batch-norm scale",
        "Whole filters leave, those first that the following batch norm scales least.",
        "Liu, Li, Shen, Huang, Yan and Zhang, Learning efficient convolutional networks through "
        "network slimming (2017), section 3: |gamma|.",
    ),
    CriterionFacts(
        "fpgm",
        "FPGM",
        "Whole filters leave, those first that lie nearest to all the others and are most easily "
        "replaced by them.",
        "He, Liu, Wang, Hu and Yang, Filter pruning via geometric median (2019), equation 6: sum "
        "of the distances to the other filters.",
    ),
)

CRITERIA: Mapping[str, CriterionFacts] = MappingProxyType({facts.name: facts for facts in _ALL})
"""The built-in criteria by name. Operators' own are added by `app.criteria.known_criteria`."""

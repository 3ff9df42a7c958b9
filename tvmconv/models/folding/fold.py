"""All passes, in their order."""

from __future__ import annotations

from tvmconv.models.constants import fold_constants
from tvmconv.models.folding.activations import name_activations
from tvmconv.models.folding.affine import fold_arithmetic
from tvmconv.models.folding.epilogues import fold_epilogues
from tvmconv.models.folding.means import pools_to_means
from tvmconv.models.folding.padding import fold_padding
from tvmconv.models.folding.resizing import enlarge_last
from tvmconv.models.folding.simplify import drop_identities, share_equal_nodes
from tvmconv.models.folding.unseen_taps import drop_unseen_taps
from tvmconv.models.graph import Graph

PASSES = (
    fold_constants,
    drop_identities,
    share_equal_nodes,
    pools_to_means,
    name_activations,  # before the summand of x + 3 goes into a bias
    fold_arithmetic,  # before padding, which a summand in front of a convolution cannot pass
    fold_padding,
    drop_unseen_taps,
    enlarge_last,  # behind what goes into filters, before activations and sums go into convolutions
    fold_epilogues,
)


def fold(graph: Graph) -> Graph:
    """Return an equal graph of fewer nodes, which ends in convolutions with all that they can do.

    Names of inputs and outputs stay.
    """
    for each in PASSES:
        graph = each(graph)
    return graph

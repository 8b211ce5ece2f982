"""How alike a query and a key are: the axis ``similarity``.

To add one: subclass ``Similarity`` and state what ``prepare`` does to queries and keys such that their plain product
is the similarity. A factor belongs into the query, so that every kernel serves it.
``tests/gau_alpha/attention/test_strategies.py`` finds the class by itself.

B batch, L length, D key size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gau_alpha.attention.strategy import Strategy
from gau_alpha.untrusted.limits import require_number


class Similarity(Strategy):
    """Turns queries and keys into vectors whose plain product is their similarity."""

    def prepare(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise and scale, before any rotation.

        Args:
            query: (B, L, D) float32.
            key: (B, L, D) float32.

        Returns:
            Query and key, (B, L, D) each.
        """
        raise NotImplementedError


class DotProduct(Similarity):
    """q·k / √d, with d the key size (Vaswani et al. 2017, arXiv 1706.03762, eq. 1)."""

    def prepare(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Divide the query by √d."""
        return query / math.sqrt(query.shape[-1]), key


class UnscaledDotProduct(Similarity):
    """q·k, as the gated attention unit was published (Hua et al. 2022, arXiv 2202.10447, code of the GAU).

    For ``ReLUSquared``, whose weights would start 1 / d as large with the 1 / √d of ``DotProduct``. The model has to be
    trained with it.
    """

    training_free = False
    paper = "arXiv 2202.10447"

    def prepare(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return both as they are."""
        return query, key


class CosScale(Similarity):
    """scale · cos(q, k) ("Information Entropy Invariance", arXiv 2501.08570, CosScale).

    Queries and keys are normalised before the rotation, which keeps norms. The model has to be trained with it.

    Args:
        scale: The score of a key that points exactly along the query, in nats. The paper goes up to 128, one of its
            scripts to 256; small models on short rows train well with 8 to 16.

    Raises:
        ValueError: If ``scale`` is not positive.
    """

    training_free = False
    paper = "arXiv 2501.08570"

    def __init__(self, scale: float = 16.0) -> None:
        super().__init__()
        require_number("scale", scale, above=0)
        self.scale = scale

    def prepare(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise both and multiply the query by ``scale``."""
        return F.normalize(query, dim=-1) * self.scale, F.normalize(key, dim=-1)


class LearnedCosScale(Similarity):
    """s · cos(q, k), with a factor s learned in each layer (Henry et al. 2020, "QKNorm", arXiv 2010.04245).

    ``CosScale`` whose scale each layer finds by itself. What is learned is ln s, so that s stays positive and moves in
    proportion to its size. Theirs starts at log₂(L² − L), 12 for 64 tokens. The model has to be trained with it.

    Args:
        initial: What s starts from, in nats.

    Raises:
        ValueError: If ``initial`` is not positive.
    """

    training_free = False
    paper = "arXiv 2010.04245"

    def __init__(self, initial: float = 8.0) -> None:
        super().__init__()
        require_number("initial", initial, above=0)
        self.initial = initial
        self.log_scale = nn.Parameter(torch.tensor([math.log(initial)]))  # (1,): FSDP deals no scalars

    def prepare(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise both and multiply the query by s."""
        return F.normalize(query, dim=-1) * self.log_scale.to(query.dtype).exp(), F.normalize(key, dim=-1)

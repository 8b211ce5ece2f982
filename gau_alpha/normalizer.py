"""From the scores of a query to the weights of its keys: the axis ``normalizer``.

To add one: subclass ``Normalizer`` and implement ``weights``, which sees all scores of a query at once, in every
kernel. ``tests/gau_alpha/attention/test_strategies.py`` finds the class by itself.

Not to be confused with a block's ``norm``, which has to do with hidden states.

B batch (1 where all rows agree), Lq and Lk queries and keys of a block.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gau_alpha.attention.strategy import Strategy
from gau_alpha.untrusted.limits import require_number


class Shares(NamedTuple):
    """What diagnostics see of the weights of some queries.

    Attributes:
        share: (B, …, Lq, Lk), weights over their sum; zeros for a query whose weights are all 0.
        entropy: (B, …, Lq), −Σ_j a_j ln a_j of these in nats.
        sink: (B, …, Lq), what the denominator gives to no key, of a normalizer that has such a sink; otherwise None.
    """

    share: Tensor
    entropy: Tensor
    sink: Tensor | None = None


class Normalizer(Strategy):
    """Turns the scores of a query into the weights of its keys.

    Attributes:
        has_entropy_by_temperature: Whether a temperature moves the entropy of the shares.
    """

    has_entropy_by_temperature: bool = True

    def weights(self, score: Tensor, num_visible_keys: Tensor) -> Tensor:
        """Compute weights.

        Args:
            score: (B, …, Lq, Lk) float32, those of all keys of a query; of hidden ones the lowest finite number.
            num_visible_keys: (B|1, …, Lq) int64, n.

        Returns:
            (B, …, Lq, Lk) float32, 0 or more; 0 for a hidden key, but for a query that sees none anything finite.
        """
        raise NotImplementedError

    def shares(self, weights: Tensor, score: Tensor, num_visible_keys: Tensor) -> Shares:
        """Say how weights are shared among keys.

        Args:
            weights: (B, …, Lq, Lk), 0 for hidden keys.
            score: (B, …, Lq, Lk), what they were made of; any number where a weight is 0.
            num_visible_keys: (B|1, …, Lq) int64, n.

        Returns:
            (B, …, Lq, Lk) shares, their entropy, and the sink's share.
        """
        share = _over_sum(weights, weights.sum(-1, keepdim=True))
        return Shares(share, torch.special.entr(share).sum(-1))


class Softmax(Normalizer):
    """exp(s_j) / Σ_m exp(s_m) (Vaswani et al. 2017, arXiv 1706.03762, eq. 1)."""

    def weights(self, score: Tensor, num_visible_keys: Tensor) -> Tensor:
        """Compute the softmax."""
        return score.softmax(dim=-1)

    def shares(self, weights: Tensor, score: Tensor, num_visible_keys: Tensor) -> Shares:
        """Take the weights as they are: they add up to 1."""
        return Shares(weights, _softmax_entropy(weights, score))


class SinkSoftmax(Normalizer):
    """exp(s_j) / (exp(b) + Σ_m exp(s_m)), with a logit b that no key has, learned in each layer.

    As in gpt-oss (OpenAI 2025, arXiv 2508.10925, sec. 2.2), where each head has one; GAU has one head. Fixed at 0 it is
    "softmax-off-by-one" (Miller 2023, "Attention is off by one"). A query can so attend to nothing. τ multiplies
    scores, not b. ``AttentionSinks`` are something else: tokens. The model has to be trained with it.

    Args:
        logit: What b starts from, or is, in nats.
        learned: Whether b is learned.

    Raises:
        ValueError: If ``logit`` is not finite.
    """

    training_free = False
    paper = "arXiv 2508.10925"

    def __init__(self, logit: float = 0.0, learned: bool = True) -> None:
        super().__init__()
        require_number("logit", logit)
        self.logit = logit
        self.learned = learned
        self.b = nn.Parameter(torch.tensor([float(logit)])) if learned else None  # (1,): FSDP deals no scalars

    def weights(self, score: Tensor, num_visible_keys: Tensor) -> Tensor:
        """Compute the softmax over all keys and b, and leave b's weight out."""
        b = score.new_full((1,), self.logit) if self.b is None else self.b.to(score.dtype)
        return torch.cat([score, b.expand(*score.shape[:-1], 1)], dim=-1).softmax(dim=-1)[..., :-1]

    def shares(self, weights: Tensor, score: Tensor, num_visible_keys: Tensor) -> Shares:
        """Divide by the sum: the softmax without b."""
        total = weights.sum(-1, keepdim=True)  # (B, …, Lq, 1)
        share = _over_sum(weights, total)
        # Nothing is left over where nothing was there to be shared.
        sink = (1 - total[..., 0]).masked_fill(num_visible_keys == 0, 0.0)
        return Shares(share, _softmax_entropy(share, score), sink)


class Entmax15(Normalizer):
    """max(0, s_j / 2 − t)², with the t at which these add up to 1 (Peters et al. 2019, arXiv 1905.05702, eq. 10).

    α-entmax with α = 1.5, between softmax (1) and sparsemax (2): keys that score far below the best get exactly 0. t is
    found by sorting (their algorithm 2). The model has to be trained with it.
    """

    training_free = False
    paper = "arXiv 1905.05702"

    def weights(self, score: Tensor, num_visible_keys: Tensor) -> Tensor:
        """Compute the threshold t, then the weights."""
        if not score.numel():
            return score
        z = (score - score.amax(dim=-1, keepdim=True).detach()) / 2  # (B, …, Lq, Lk), at most 0
        with torch.no_grad():
            t = _newton(z, _entmax_threshold(z))  # the second step is for rounding: sums of many squares lose digits
        return F.relu(z - _newton(z, t)).square()


class ReLUSquared(Normalizer):
    """max(0, s_j / n)², n the number of visible keys (Hua et al. 2022, arXiv 2202.10447, code of the GAU).

    The gated attention unit's own, of which GAU-α is a descendant: n divides before the square is taken. Weights don't
    add up to 1, and a query may give all keys 0. The paper's q·k has no 1/√d (``UnscaledDotProduct``), and its bias is
    added after the division. A temperature changes all weights of a query by the same factor τ², and no entropy. The
    model has to be trained with it.
    """

    training_free = False
    has_entropy_by_temperature = False
    paper = "arXiv 2202.10447"

    def weights(self, score: Tensor, num_visible_keys: Tensor) -> Tensor:
        """Divide by n, cut at 0, and square."""
        return F.relu(score / num_visible_keys.clamp_min(1)[..., None]).square()


def _over_sum(weights: Tensor, total: Tensor) -> Tensor:
    """Divide weights (B, …, Lq, Lk) by their sums (B, …, Lq, 1); weights that are all 0 stay 0."""
    return weights / total.clamp_min(torch.finfo(total.dtype).tiny)


def _softmax_entropy(weights: Tensor, score: Tensor) -> Tensor:
    """Compute −Σ_j a_j ln a_j in nats without taking the logarithm of every weight of a softmax.

    ln a_j = s_j − max_m s_m − ln Z, and the largest weight is 1 / Z.

    Args:
        weights: (B, …, Lq, Lk).
        score: (B, …, Lq, Lk), what they were made of; any number where a weight is 0.

    Returns:
        (B, …, Lq) float32, 0 for a query that sees no key.
    """
    unseen = weights == 0
    largest_score = score.masked_fill(unseen, torch.finfo(score.dtype).min).amax(dim=-1, keepdim=True)  # (B, …, Lq, 1)
    centred = (score - largest_score).masked_fill(unseen, 0.0)  # (B, …, Lq, Lk)
    largest = weights.amax(dim=-1)  # (B, …, Lq)
    mean_score = (weights * centred).sum(-1)  # (B, …, Lq)
    return torch.where(largest > 0, -largest.clamp_min(torch.finfo(weights.dtype).tiny).log() - mean_score, 0.0)


def _entmax_threshold(z: Tensor) -> Tensor:
    """Find t with Σ_j max(0, z_j − t)² = 1 (Peters et al. 2019, algorithm 2).

    Were the k largest the ones above t, it would be their mean − √((1 − Σ (z_j − mean)²) / k); they are for the
    largest k at which that lies below the smallest of them.

    Args:
        z: (B, …, Lq, Lk), the largest of each query 0.

    Returns:
        (B, …, Lq, 1).
    """
    # No weight is above 1, so t is at least −1, and what lies below that matters not: hidden keys do not overflow.
    largest = z.clamp_min(-1).sort(dim=-1, descending=True).values  # (B, …, Lq, Lk)
    k = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)  # (Lk,)
    mean = largest.cumsum(-1) / k  # (B, …, Lq, Lk)
    spread = largest.square().cumsum(-1) - k * mean.square()  # (B, …, Lq, Lk)
    t = mean - ((1 - spread).clamp_min(0) / k).sqrt()  # (B, …, Lq, Lk)
    num_above = (t <= largest).sum(-1, keepdim=True)  # (B, …, Lq, 1)
    return t.gather(-1, num_above - 1)


def _newton(z: Tensor, t: Tensor) -> Tensor:
    """Take one step of Newton's method towards Σ_j max(0, z_j − t)² = 1.

    At the solution the step is 0 and its derivative by z is that of the solution (the implicit function theorem), so
    that nothing need be differentiated through the search.

    Args:
        z: (B, …, Lq, Lk).
        t: (B, …, Lq, 1), near the solution.

    Returns:
        (B, …, Lq, 1).
    """
    above = F.relu(z - t)  # (B, …, Lq, Lk)
    slope = 2 * above.detach().sum(-1, keepdim=True)  # (B, …, Lq, 1)
    return t + (above.square().sum(-1, keepdim=True) - 1) / slope

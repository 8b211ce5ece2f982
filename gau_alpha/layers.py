"""The gated attention unit and the block around it.

B batch, L length, D key size, E value width, H hidden size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gau_alpha.config import GAUAlphaConfig
from gau_alpha.kernels import Kernel, Observer
from gau_alpha.method import AttentionMethod, AttentionPlan


def norm(x: Tensor, eps: float) -> Tensor:
    """X / √(mean(x²) + ε) over the last dimension, in float32: no scale, no offset.

    Args:
        x: (..., H).
        eps: ε.

    Returns:
        (..., H), of the dtype of ``x``.
    """
    return F.rms_norm(x.float(), x.shape[-1:], eps=eps).to(x.dtype)


class ScaleOffset(nn.Module):
    """x ⊙ γ (+ β), which makes queries or keys of the base they share.

    Args:
        size: D.
        bias: Whether there is a β.
    """

    def __init__(self, size: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift (B, L, D), in float32."""
        scaled = x.float() * self.weight.float()
        return scaled if self.bias is None else scaled + self.bias.float()


class GatedAttentionUnit(nn.Module):
    """GAU(x) = W_o (u ⊙ A v) with u, v, base = split(silu(W_i x)) (Hua et al. 2022, arXiv 2202.10447, eq. 4–6).

    One head; queries and keys are the same base, scaled and shifted. A is the softmax of the method's scores instead of
    the paper's squared ReLU, as in GAU-α.

    Args:
        config: Sizes and rates.
        method: What makes scores and weights.
    """

    def __init__(self, config: GAUAlphaConfig, method: AttentionMethod) -> None:
        super().__init__()
        self.intermediate_size = config.intermediate_size
        self.key_size = config.attention_key_size
        self.attention_dropout = config.attention_probs_dropout_prob
        self.i_dense = nn.Linear(config.hidden_size, 2 * self.intermediate_size + self.key_size, config.use_bias)
        self.q_scaleoffset = ScaleOffset(self.key_size, config.use_bias)
        self.k_scaleoffset = ScaleOffset(self.key_size, config.use_bias)
        self.o_dense = nn.Linear(self.intermediate_size, config.hidden_size, config.use_bias)
        self.method = method

    def forward(self, x: Tensor, plan: AttentionPlan, kernel: Kernel, observer: Observer | None = None) -> Tensor:
        """Gate and attend.

        Args:
            x: (B, L, H).
            plan: The method's plan for these rows.
            kernel: How to compute attention.
            observer: Sees the attention weights.

        Returns:
            (B, L, H).
        """
        projected = F.silu(self.i_dense(x))  # (B, L, 2E + D)
        u, v, base = projected.split([self.intermediate_size, self.intermediate_size, self.key_size], dim=-1)
        query, key = self.method.similarity.prepare(self.q_scaleoffset(base), self.k_scaleoffset(base))  # (B, L, D)
        dropout = self.attention_dropout if self.training else 0.0
        context = kernel(query, key, v, plan, dropout, observer)  # (B, L, E)
        return self.o_dense(u * context)  # (B, L, H)


class GAUBlock(nn.Module):
    """norm(x + dropout(GAU(x))).

    Args:
        config: Sizes and rates.
        method: The unit's attention method.
    """

    def __init__(self, config: GAUAlphaConfig, method: AttentionMethod) -> None:
        super().__init__()
        self.gau = GatedAttentionUnit(config, method)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.norm_eps = config.norm_eps

    def forward(self, x: Tensor, plan: AttentionPlan, kernel: Kernel, observer: Observer | None = None) -> Tensor:
        """Apply the unit, the residual connection and the norm to (B, L, H)."""
        return norm(x + self.dropout(self.gau(x, plan, kernel, observer)), self.norm_eps)

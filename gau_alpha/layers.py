"""The gated attention unit and the block around it.

B batch, L length, D key size, E value width, H hidden size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gau_alpha.config import GAUAlphaConfig
from gau_alpha.dropout import Dropout
from gau_alpha.kernels import Blocked, Kernel, Observer, attend_at
from gau_alpha.kernels.blocks import LARGEST
from gau_alpha.method import AttentionMethod, AttentionPlan
from gau_alpha.pointwise import norm, silu_gate, silu_split


def take(x: Tensor, index: Tensor) -> Tensor:
    """Take the places ``index`` (B, T) of each row of ``x`` (B, L, H), which gives (B, T, H)."""
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[-1]))


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
        sizes = [self.intermediate_size, self.intermediate_size, self.key_size]
        projected = self.i_dense(x)  # (B, L, E + E + D)
        if self.i_dense._forward_hooks:  # they may have kept it, and it is going to be overwritten
            projected = projected.clone()
        gate, v, base = silu_gate(projected, sizes)  # (B, L, E) and (B, L, D)
        query, key = self.method.similarity.prepare(*self._scaled(base))  # (B, L, D)
        dropout = self.attention_dropout if self.training else 0.0
        context = kernel(query, key, v, plan, dropout, observer)  # (B, L, E)
        return self.o_dense(gate(context))  # (B, L, H)

    def forward_at(self, index: Tensor, x: Tensor, plan: AttentionPlan, kernel: Kernel) -> Tensor:
        """Gate and attend at some places of each row: gates and queries of the others are never computed.

        Args:
            index: (B, T) int64, places in the rows.
            x: (B, L, H).
            plan: The method's plan for these rows.
            kernel: Its block size is kept to.

        Returns:
            (B, T, H).
        """
        bias = self.i_dense.bias
        width = self.intermediate_size
        projected = F.linear(x, self.i_dense.weight[width:], None if bias is None else bias[width:])  # (B, L, E + D)
        v, base = silu_split(projected, [width, self.key_size])  # (B, L, E), (B, L, D)
        u = F.silu(F.linear(take(x, index), self.i_dense.weight[:width], None if bias is None else bias[:width]))
        # A similarity prepares queries and keys together, and each by itself: the keys' partner is thrown away.
        query, _ = self.method.similarity.prepare(*(self._scaled(take(base, index))))  # (B, T, D)
        _, key = self.method.similarity.prepare(*self._scaled(base))  # (B, L, D)
        most = kernel.block_size if isinstance(kernel, Blocked) else LARGEST
        dropout = self.attention_dropout if self.training else 0.0
        context = attend_at(index, query, key, v, plan, most, dropout)  # (B, T, E)
        return self.o_dense(u * context)  # (B, T, H)

    def query_and_key(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Make the prepared queries and keys of (B, L, H), (B, L, D) each, and nothing else."""
        width = 2 * self.intermediate_size
        bias = self.i_dense.bias
        base = F.silu(F.linear(x, self.i_dense.weight[width:], None if bias is None else bias[width:]))  # (B, L, D)
        return self.method.similarity.prepare(*self._scaled(base))

    def _scaled(self, base: Tensor) -> tuple[Tensor, Tensor]:
        return self.q_scaleoffset(base), self.k_scaleoffset(base)


class GAUBlock(nn.Module):
    """norm(x + dropout(GAU(x))).

    Args:
        config: Sizes and rates.
        method: The unit's attention method.
    """

    def __init__(self, config: GAUAlphaConfig, method: AttentionMethod) -> None:
        super().__init__()
        self.gau = GatedAttentionUnit(config, method)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.norm_eps = config.norm_eps

    def forward(
        self,
        x: Tensor,
        plan: AttentionPlan,
        kernel: Kernel,
        observer: Observer | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """Apply the unit, the residual connection and the norm.

        Args:
            x: (B, L, H).
            plan: The method's plan for these rows.
            kernel: How to compute attention.
            observer: Sees the attention weights; not with ``index``.
            index: (B, T) int64, the only places that are computed. None: all.

        Returns:
            (B, L, H); (B, T, H) with ``index``.
        """
        if index is not None:
            return norm(take(x, index) + self.dropout(self.gau.forward_at(index, x, plan, kernel)), self.norm_eps)
        return norm(x + self.dropout(self.gau(x, plan, kernel, observer)), self.norm_eps)

"""One vector per row: what sequence heads and text embeddings are made of.

B batch, L length, H hidden size.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Pooling = Callable[[Tensor, Tensor | None], Tensor]
"""Makes (B, H) of hidden states (B, L, H) and a mask (B, L)."""


def first_token(x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Take the first token of (B, L, H), such as [CLS]: (B, H); zeros where a row has no real token.

    Args:
        x: (B, L, H) hidden states.
        attention_mask: (B, L), nonzero on real tokens, which stand before all padding. None: all are real.
    """
    first = x[:, 0]  # (B, H)
    return first if attention_mask is None else first * (attention_mask[:, :1] != 0)


def mean_token(x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Average the real tokens of (B, L, H), in float32: (B, H); zeros where a row has none.

    Args:
        x: (B, L, H) hidden states.
        attention_mask: (B, L), nonzero on real tokens. None: all are real.
    """
    if attention_mask is None:
        return x.float().mean(1)
    real = (attention_mask != 0)[:, :, None]  # (B, L, 1)
    total = torch.where(real, x.float(), 0).sum(1)  # (B, H)
    return total / real.sum(1).clamp_min(1)


POOLINGS: dict[str, Pooling] = {"first": first_token, "mean": mean_token}
"""Ways to make one vector of a text, by name."""


def pooling_of(name: str) -> Pooling:
    """Look a pooling up.

    Args:
        name: ``first`` or ``mean``.

    Returns:
        What makes (B, H) of hidden states (B, L, H).

    Raises:
        ValueError: If there is none of that name.
    """
    if not isinstance(name, str) or name not in POOLINGS:
        raise ValueError(f"pooling is {name!r}; choose one of: {', '.join(POOLINGS)}.")
    return POOLINGS[name]

"""Layers in turns: local ones, and every so often a full one, which differ on some axes.

SWAN (arXiv 2504.08719) and RNoPE-SWA (arXiv 2501.18795) have windows with RoPE and full attention without positions,
ModernBERT (arXiv 2412.13663) windows and full attention.
"""

from collections.abc import Mapping
from typing import Any, Self

from gau_alpha.attention.strategy import Strategy
from gau_alpha.normalizer import Normalizer
from gau_alpha.position import Position
from gau_alpha.scaling import Scaling
from gau_alpha.similarity import Similarity
from gau_alpha.untrusted.limits import require_whole
from gau_alpha.untrusted.registry import public_path
from gau_alpha.visibility import Visibility


class Axes:
    """Strategies on some axes; None leaves an axis open.

    Args:
        similarity: As in ``AttentionMethod``.
        scaling: Likewise.
        position: Likewise.
        visibility: Likewise.
        normalizer: Likewise.
    """

    def __init__(
        self,
        similarity: Similarity | None = None,
        scaling: Scaling | None = None,
        position: Position | None = None,
        visibility: Visibility | None = None,
        normalizer: Normalizer | None = None,
    ) -> None:
        every_axis = {
            "similarity": similarity,
            "scaling": scaling,
            "position": position,
            "visibility": visibility,
            "normalizer": normalizer,
        }
        self.chosen: dict[str, Strategy] = {axis: one for axis, one in every_axis.items() if one is not None}


class Turns:
    """Every so many layers one is full: it has other strategies on some axes than the local layers before it.

    Args:
        every: Layers of a turn, the last of which is full.
        full: What full layers have, by axis.

    Raises:
        ValueError: If ``every`` is below 2, ``full`` is empty, or positions are drawn for it in training.
    """

    def __init__(self, every: int, full: Mapping[str, Strategy]) -> None:
        require_whole("every", every, least=2, why="with fewer no layer would be local")
        if not full:
            raise ValueError("full names no axis: give what every so many layers have in place of the others.")
        position = full.get("position")
        if isinstance(position, Position) and position.samples_positions:
            raise ValueError(
                f"{type(position).__name__} draws the positions that all layers see: full layers alone can't have it."
            )
        self.every = every
        self.full = dict(full)

    @property
    def training_free(self) -> bool:
        """Whether a model that was trained without can be evaluated with them."""
        return all(strategy.training_free for strategy in self.full.values())

    @property
    def paper(self) -> str:
        """Where the strategies of full layers were published."""
        return ", ".join(dict.fromkeys(strategy.paper for strategy in self.full.values() if strategy.paper))

    def is_full(self, layer: int) -> bool:
        """Say whether a layer, counted from 0, is full: the last of each turn."""
        return (layer + 1) % self.every == 0

    def without(self, axes: Mapping[str, Strategy]) -> "Turns | None":
        """Let all layers agree on some axes; None if that is all on which they differed."""
        left = {axis: strategy for axis, strategy in self.full.items() if axis not in axes}
        return self if len(left) == len(self.full) else Turns(self.every, left) if left else None

    def with_train_length(self, train_length: int) -> Self:
        """Return these turns with ``train_length`` filled in where a strategy needs it; see ``Strategy``."""
        full = {axis: strategy.with_train_length(train_length) for axis, strategy in self.full.items()}
        unchanged = all(strategy is self.full[axis] for axis, strategy in full.items())
        return self if unchanged else type(self)(self.every, full)

    def describe(self) -> dict[str, Any]:
        """Say in plain data what to hand to ``AttentionMethod``: ``{"every": …, "full": …}``."""
        axes = {axis: strategy.describe() for axis, strategy in self.full.items()}
        return {"every": self.every, "full": {"class_path": public_path(Axes), "init_args": axes}}

    def __repr__(self) -> str:
        """Show on one line what full layers have."""
        return f"every {self.every} layers {' · '.join(map(repr, self.full.values()))}"

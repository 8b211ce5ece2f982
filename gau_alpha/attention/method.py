"""An attention method: one strategy on each of five axes.

    score_ij = τ(n_i) · ( gain(j − i) · similarity(q_i, k_j) + bias(j − i) )      for keys j that query i may see
    A_i      = normalizer_j score_ij                             softmax, unless told otherwise

B batch (1 where all rows agree), L length, D key size.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.strategy import Strategy
from gau_alpha.attention.turns import Axes, Turns
from gau_alpha.normalizer import Normalizer, Softmax
from gau_alpha.position import Position, RoPE, Rotary, RotaryBranch
from gau_alpha.scaling import NoScaling, Scaling
from gau_alpha.similarity import DotProduct, Similarity
from gau_alpha.visibility import Full, Visibility

AXES = ("similarity", "scaling", "position", "visibility", "normalizer")
"""Names of the five choices that make a method."""

FIXED_BY_TRAINING = ("similarity", "normalizer")
"""Axes on which weights are good for the strategy alone that they were trained with, and for its settings."""


@dataclass(frozen=True)
class AttentionPlan:
    """What a method makes of a batch's rows; computed once per forward pass and shared by all layers that agree.

    Attributes:
        layout: Padding, documents and positions.
        position: Gives gain and bias of a block of scores, if it has them.
        visibility: Gives the mask of a block of scores.
        normalizer: Makes weights of scores.
        branches: How queries and keys are rotated, and at which distances.
        num_visible_keys: (B|1, L) int64, n_i.
        temperature: (B|1, L) float32, τ(n), n as the scaling's ``count`` says.
    """

    layout: SequenceLayout
    position: Position
    visibility: Visibility
    normalizer: Normalizer
    branches: tuple[RotaryBranch, ...]
    num_visible_keys: Tensor
    temperature: Tensor


class AttentionMethod(nn.Module):
    """Five independent choices that make an attention method.

    Args:
        similarity: How alike a query and a key are.
        scaling: The temperature as a function of the number of visible keys.
        position: What the scores know of where query and key stand.
        visibility: Which keys a query may see.
        normalizer: How the scores of a query become weights.
        every: Layers in turns: every so many layers one is full, the last of them, and the others are local. None: all
            layers have the strategies above.
        local: What local layers have in place of the strategies above.
        full: What full layers have in place of these.

    Attributes:
        turns: What full layers have; None if all layers are alike. The strategies above are those of local layers.

    Raises:
        ValueError: If visibility and position make no sense together, or the position by itself, in local or in full
            layers; or if one of ``every`` and ``full`` is given without the other.
    """

    similarity: Similarity
    scaling: Scaling
    position: Position
    visibility: Visibility
    normalizer: Normalizer

    def __init__(
        self,
        similarity: Similarity | None = None,
        scaling: Scaling | None = None,
        position: Position | None = None,
        visibility: Visibility | None = None,
        normalizer: Normalizer | None = None,
        every: int | None = None,
        local: Axes | None = None,
        full: Axes | None = None,
    ) -> None:
        super().__init__()
        if every is None and (local or full):
            raise ValueError(
                "local and full layers take turns: say every how many layers one is full, such as every: 3."
            )
        if every is not None and full is None:
            raise ValueError(f"every: {every} says that layers take turns, but not what full layers have: give full.")
        self.similarity = similarity or DotProduct()
        self.scaling = scaling or NoScaling()
        self.position = position or RoPE()
        self.visibility = visibility or Full()
        self.normalizer = normalizer or Softmax()
        for axis, strategy in local.chosen.items() if local else ():
            setattr(self, axis, strategy)
        self.turns = Turns(every, full.chosen) if every is not None and full else None
        self.visibility.check(self.position)
        if self.position.gained and self.position.remaps_far_keys:
            raise ValueError(
                f"{type(self.position).__name__} gives far keys other distances and multiplies scores by a gain of the "
                f"distance, and nothing says of which distance: use a position without a gain."
            )
        if self.turns:
            self._with(None, self._full())  # which refuses what makes no sense together in full layers

    def axes(self) -> Iterator[tuple[str, Strategy]]:
        """Yield the name and the strategy of each axis; under turns, those of local layers."""
        for axis in AXES:
            yield axis, getattr(self, axis)

    def replace(self, **axes: Any) -> "AttentionMethod":
        """Return this method with other strategies on some axes, in all layers; the rest are the same objects.

        Args:
            **axes: Strategies by axis, or the names of their classes, as in a YAML: ``scaling="InfoScale"``; and
                ``turns``, as the attribute, if full layers are to differ on other axes.

        Raises:
            ValueError: If there is no such axis or class, which lists those that there are.
        """
        # presets know methods, so none knows them here
        from gau_alpha.attention.presets import AXIS_TYPES, build_strategies

        turns = axes.pop("turns") if "turns" in axes else self.turns and self.turns.without(axes)
        if unknown := axes.keys() - set(AXES):
            raise ValueError(f"There is no axis {', '.join(sorted(unknown))}; the axes are {', '.join(AXES)}.")
        named = build_strategies({axis: one for axis, one in axes.items() if not isinstance(one, AXIS_TYPES[axis])})
        return self._with(turns, {**dict(self.axes()), **axes, **named})

    def with_train_length(self, train_length: int) -> "AttentionMethod":
        """Return this method with the data's ``train_length`` filled in where a strategy needs it.

        Raises:
            ValueError: If a strategy was built with another ``train_length``.
        """
        axes = {axis: strategy.with_train_length(train_length) for axis, strategy in self.axes()}
        return self._with(self.turns.with_train_length(train_length) if self.turns else None, axes)

    def with_open_train_length(self, train_length: int) -> "AttentionMethod":
        """Return this method with ``train_length`` filled in where a strategy needs one and has none."""

        def filled(strategy: Strategy) -> Strategy:
            is_open = getattr(strategy, "train_length", None) in (None, train_length)
            return strategy.with_train_length(train_length) if is_open else strategy

        turns = self.turns and Turns(
            self.turns.every, {axis: filled(strategy) for axis, strategy in self.turns.full.items()}
        )
        return self._with(turns, {axis: filled(strategy) for axis, strategy in self.axes()})

    def for_layers(self, num_layers: int) -> list["AttentionMethod"]:
        """Return the method of each layer: the same object, unless a strategy has learned or per-layer state.

        Raises:
            ValueError: If there are turns, and fewer layers than make one.
        """
        if self.turns and num_layers < self.turns.every:
            raise ValueError(
                f"Every {self.turns.every} layers one is full, but there are {num_layers}: none would be. Take a "
                f"deeper model, or a smaller `every`."
            )
        methods: list[AttentionMethod] = []
        for layer in range(num_layers):
            chosen = self._full() if self.turns and self.turns.is_full(layer) else dict(self.axes())
            axes = {axis: strategy.for_layer(layer, num_layers) for axis, strategy in chosen.items()}
            methods.append(self._shared(axes, methods))
        return methods

    def inherit_layer_state(self, layers: list["AttentionMethod"]) -> list["AttentionMethod"]:
        """Return the method of each layer of a model whose layers had ``layers`` so far.

        A strategy of this method that is the very object of the model's method was taken over from it, and each layer
        keeps its own, with what that layer learned; other strategies replace those of all layers.
        """
        fresh = self.for_layers(len(layers))
        methods: list[AttentionMethod] = []
        for new, old in zip(fresh, layers, strict=True):
            axes = {axis: getattr(old if self._took_over(axis, layers[0]) else new, axis) for axis in AXES}
            methods.append(self._shared(axes, methods))
        return methods

    def _took_over(self, axis: str, other: "AttentionMethod") -> bool:
        return getattr(self, axis) is getattr(other, axis) and self._in_turn(axis) == other._in_turn(axis)

    def _in_turn(self, axis: str) -> tuple[int | None, Strategy | None]:
        return (self.turns.every, self.turns.full[axis]) if self.turns and axis in self.turns.full else (None, None)

    def _full(self) -> dict[str, Strategy]:
        """The strategies of full layers."""
        return {**dict(self.axes()), **(self.turns.full if self.turns else {})}

    @staticmethod
    def _with(turns: Turns | None, axes: Mapping[str, Strategy]) -> "AttentionMethod":
        arguments: dict[str, Any] = {} if turns is None else {"every": turns.every, "full": Axes(**turns.full)}  # type: ignore[arg-type]
        return AttentionMethod(**axes, **arguments)  # type: ignore[arg-type]

    def _shared(self, axes: dict[str, Strategy], methods: list["AttentionMethod"]) -> "AttentionMethod":
        # Layers that agree on every axis share one object, so that a forward pass plans once.
        for method in (self, *methods):
            if all(strategy is axes[axis] for axis, strategy in method.axes()):
                return method
        return self._with(self.turns, axes)

    def compatibility_warnings(self, trained: "AttentionMethod") -> list[str]:
        """Say what speaks against evaluating a model that was trained under another method under this one.

        Args:
            trained: The method that the model was trained under.

        Returns:
            A sentence for each concern; empty for the same method and for training-free overrides.
        """
        concerns = [*self._concerns(dict(self.axes()), dict(trained.axes()))]
        if self.turns or trained.turns:
            concerns += self._concerns(self._full(), trained._full())
        return list(dict.fromkeys(concerns))

    @staticmethod
    def _concerns(axes: dict[str, Strategy], trained: dict[str, Strategy]) -> list[str]:
        concerns = []
        for axis, strategy in axes.items():
            own = trained[axis]
            if axis in FIXED_BY_TRAINING:
                if strategy.describe() != own.describe():
                    concerns.append(f"{axis} overridden: the weights were trained for another one")
            elif not strategy.training_free and type(strategy) is not type(own):
                concerns.append(f"{type(strategy).__name__} has to be trained, and was not")
        if isinstance(axes["position"], Rotary) and not isinstance(trained["position"], Rotary):
            concerns.append("position overridden: the weights were trained without rotations")
        return concerns

    def plan(self, layout: SequenceLayout, key_size: int) -> AttentionPlan:
        """Work out rotations, temperatures and counts for a batch's rows.

        Args:
            layout: Padding, documents and positions.
            key_size: D.
        """
        num_visible_keys = self.visibility.num_visible_keys(layout)  # (B|1, L)
        counted = num_visible_keys if self.scaling.count == "visible" else layout.document_length  # (B|1, L)
        return AttentionPlan(
            layout=layout,
            position=self.position,
            visibility=self.visibility,
            normalizer=self.normalizer,
            branches=self.visibility.branches(self.position, layout, key_size),
            num_visible_keys=num_visible_keys,
            temperature=self.scaling.temperature(counted, key_size),
        )

    def describe(self) -> dict[str, Any]:
        """Say in plain data what the method is: ``{axis: {"class_path": …, "init_args": {…}}}``, and turns."""
        axes = {axis: strategy.describe() for axis, strategy in self.axes()}
        return axes | (self.turns.describe() if self.turns else {})

    def summary(self) -> str:
        """Say on one line what the method is."""
        axes = " · ".join(repr(strategy) for _, strategy in self.axes())
        return f"{axes}; {self.turns!r}" if self.turns else axes

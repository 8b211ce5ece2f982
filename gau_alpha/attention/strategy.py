"""What the strategies of all axes have in common."""

import copy
import inspect
import sys
from typing import Any, Self, TypeVar

from torch import nn

Number = TypeVar("Number", int, float)


class Strategy(nn.Module):
    """One choice on one axis of an ``AttentionMethod``.

    A subclass keeps every argument of its constructor in an attribute of the same name. That is all it takes to be
    described in a config, a checkpoint and a report. Learned state is an ordinary ``nn.Parameter``; each layer then
    gets a copy of its own.

    Attributes:
        training_free: Whether a model that was trained without the strategy can be evaluated with it.
        paper: Where it was published; empty for what every method builds on.
    """

    training_free: bool = True
    paper: str = ""

    def describe(self) -> dict[str, Any]:
        """Say in plain data how to build this strategy: ``{"class_path": …, "init_args": {…}}``."""
        cls = type(self)
        init_args = {name: _plain(getattr(self, name)) for name in init_parameters(cls)}
        return {"class_path": _public_path(cls), "init_args": init_args}

    def with_train_length(self, train_length: int) -> Self:
        """Return this strategy with the data's ``train_length`` filled in where it was left open.

        Args:
            train_length: Tokens per training row, as the data module has it.

        Returns:
            ``self`` if there is nothing to fill in, otherwise a copy.

        Raises:
            ValueError: If the strategy was built with another ``train_length``.
        """
        if "train_length" not in init_parameters(type(self)):
            return self
        own = getattr(self, "train_length")  # noqa: B009  (only subclasses that ask for it have one)
        if own == train_length:
            return self
        if own is not None:
            raise ValueError(
                f"{type(self).__name__} was given train_length {own}, but the data has rows of {train_length} tokens. "
                f"Leave train_length out: it is taken from the data."
            )
        bound = copy.deepcopy(self)
        setattr(bound, "train_length", train_length)  # noqa: B010
        return bound

    def for_layer(self, layer: int, num_layers: int) -> Self:
        """Return the strategy that layer number ``layer`` of ``num_layers`` uses.

        Strategies without learned state are shared by all layers; the others are copied, so that each layer learns
        its own.
        """
        return copy.deepcopy(self) if any(True for _ in self.parameters()) else self

    def __repr__(self) -> str:
        """Show the arguments that differ from their defaults, as in ``InfoScale(train_length=64)``."""
        parameters = init_parameters(type(self))
        return self._told([name for name, one in parameters.items() if getattr(self, name) != one.default])

    def in_full(self) -> str:
        """Show all arguments, as where one of them was swept and has its default once: ``CosScale(scale=16.0)``."""
        return self._told(list(init_parameters(type(self))))

    def _told(self, names: list[str]) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


def require_train_length(strategy: Strategy, value: Number | None) -> Number:
    """Return what a strategy takes from train_length, or say how it gets it.

    Args:
        strategy: Who asks.
        value: What it knows; None: nothing yet.

    Raises:
        ValueError: If it is None.
    """
    if value is None:
        raise ValueError(
            f"{type(strategy).__name__} does not know train_length yet: pass it, or take the method from a model or "
            f"config, where the data's train_length is filled in."
        )
    return value


def init_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Return the arguments that a strategy is built with, by name.

    Args:
        cls: The class of the strategy.
    """
    # nn.Module's own (*args, **kwargs) show through where a strategy has no constructor.
    parameters = inspect.signature(cls).parameters
    return {name: one for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD}


def _public_path(cls: type) -> str:
    """Return the shortest path that the class can be imported from: ``gau_alpha.position.RoPE``, not its file's."""
    parts = cls.__module__.split(".")
    for end in range(1, len(parts)):
        module = sys.modules.get(".".join(parts[:end]))
        if module is not None and vars(module).get(cls.__qualname__) is cls:
            return ".".join([*parts[:end], cls.__qualname__])
    return f"{cls.__module__}.{cls.__qualname__}"


def _plain(value: Any) -> Any:
    if isinstance(value, Strategy):
        return value.describe()
    if isinstance(value, list | tuple | nn.ModuleList):
        return [_plain(item) for item in value]
    return value

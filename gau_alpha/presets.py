"""Attention methods by name, and from plain data.

A preset is a file ``configs/method/NAME.yaml`` with a strategy for some or all axes. On a trained model the axes that
it leaves open stay as they are.
"""

from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from gau_alpha.calibration import CalibratedScale  # noqa: F401  known by its name from here on
from gau_alpha.method import AXES, AttentionMethod
from gau_alpha.position import Position
from gau_alpha.scaling import Scaling
from gau_alpha.similarity import Similarity
from gau_alpha.strategy import Strategy
from gau_alpha.visibility import Visibility

AXIS_TYPES = {"similarity": Similarity, "scaling": Scaling, "position": Position, "visibility": Visibility}

TRAINED = "trained"
"""The name under which a model's own method, as it was trained, is evaluated."""


def preset_names() -> list[str]:
    """List the shipped presets, in alphabetical order."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str) -> dict[str, Strategy]:
    """Build the strategies of a preset.

    Args:
        name: Such as ``infoscale``; see ``preset_names``.

    Returns:
        A strategy per axis that the preset fixes.

    Raises:
        ValueError: If there is no preset of that name.
    """
    if name not in preset_names():
        raise ValueError(f"Unknown method {name!r}; choose from: {', '.join([TRAINED, *preset_names()])}.")
    return build_strategies(yaml.safe_load(_folder().joinpath(f"{name}.yaml").read_text(encoding="utf-8")))


def resolve_method(name: str, base: AttentionMethod, train_length: int) -> AttentionMethod:
    """Apply a preset to a model's method.

    What was trained stays: where the preset names the similarity that the model was trained with, or a strategy whose
    parameters the model has learned, the model's own is kept, with its settings.

    Args:
        name: A preset's name, or ``trained`` for the model's own method.
        base: The model's method.
        train_length: Tokens per training row.

    Raises:
        ValueError: If there is no preset of that name.
    """
    if name == TRAINED:
        return base
    own = dict(base.axes())
    axes = {
        axis: own[axis] if type(strategy) is type(own[axis]) and _is_trained(own[axis]) else strategy
        for axis, strategy in load_preset(name).items()
    }
    return base.replace(**axes).bound(train_length)


def build_strategies(description: Mapping[str, Any]) -> dict[str, Strategy]:
    """Build strategies from plain data, as ``AttentionMethod.describe`` gives it.

    Args:
        description: A class path, or ``{"class_path": …, "init_args": {…}}``, per axis.

    Raises:
        ValueError: If an axis or a class is unknown, or an argument does not fit.
    """
    if unknown := set(description) - set(AXES):
        raise ValueError(f"Unknown axis {', '.join(map(repr, sorted(unknown)))}; the axes are {', '.join(AXES)}.")
    parser = ArgumentParser(exit_on_error=False)
    for axis in description:
        parser.add_argument(f"--{axis}", type=AXIS_TYPES[axis])
    try:
        strategies = parser.instantiate(parser.parse_object(dict(description)))
    except ArgumentError as error:
        raise ValueError(f"Not a method: {error}\n{known_strategies()}") from error
    return {axis: strategies[axis] for axis in description}


def method_from(description: Mapping[str, Any]) -> AttentionMethod:
    """Build a method from plain data; axes that are left out get the defaults of ``AttentionMethod``.

    Raises:
        ValueError: If an axis or a class is unknown, or an argument does not fit.
    """
    return AttentionMethod(**build_strategies(description))  # type: ignore[arg-type]


def known_strategies() -> str:
    """List the strategies of each axis, a line each."""
    lines = []
    for axis, base in AXIS_TYPES.items():
        names = sorted(cls.__name__ for cls in _subclasses(base) if cls.__module__.startswith("gau_alpha."))
        lines.append(f"{axis}: {', '.join(names)}")
    return "\n".join(lines)


def _subclasses(base: type) -> set[type]:
    direct: set[type] = set(base.__subclasses__())
    # A class with subclasses of its own and no constructor is a family (Rotary), not a choice.
    found = {cls for cls in direct if "__init__" in vars(cls) or not cls.__subclasses__()}
    return found.union(*(_subclasses(cls) for cls in direct))


def _is_trained(strategy: Strategy) -> bool:
    return isinstance(strategy, Similarity) or any(True for _ in strategy.parameters())


def _folder() -> Traversable:
    return files("configs").joinpath("method")

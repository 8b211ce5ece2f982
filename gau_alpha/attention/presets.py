"""Attention methods by name, and from plain data.

A preset is a file ``configs/method/NAME.yaml`` with a strategy for some or all axes, and for layers in turns. On a
trained model the axes that it leaves open stay as they are. This is the only place that makes a method of a name: on
the command line, in a YAML and in a checkpoint alike.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import takewhile
from pathlib import Path
from typing import Any

from gau_alpha import normalizer, position, scaling, similarity, visibility
from gau_alpha.attention.method import AXES, FIXED_BY_TRAINING, AttentionMethod
from gau_alpha.attention.strategy import Strategy
from gau_alpha.attention.turns import Axes
from gau_alpha.normalizer import Normalizer
from gau_alpha.position import Position, Rotary
from gau_alpha.scaling import Scaling
from gau_alpha.similarity import Similarity
from gau_alpha.untrusted.reading import parse_yaml, read_yaml
from gau_alpha.untrusted.registry import Registry, exported, shown
from gau_alpha.untrusted.trust import named_classes, trusting, user_modules
from gau_alpha.visibility import Visibility

AXIS_TYPES = {
    "similarity": Similarity,
    "scaling": Scaling,
    "position": Position,
    "visibility": Visibility,
    "normalizer": Normalizer,
}
"""What every strategy of an axis is a subclass of."""

METHODS = Registry(
    {
        AttentionMethod: [AttentionMethod],
        Axes: [Axes],
        Similarity: exported(similarity, Similarity),
        Scaling: exported(scaling, Scaling),
        Position: [cls for cls in exported(position, Position) if cls is not Rotary],  # which gives no angles
        Visibility: exported(visibility, Visibility),
        Normalizer: exported(normalizer, Normalizer),
    }
)
"""The strategies that a file may name."""

IN_TURNS = ("every", "local", "full")
"""What a description says of layers in turns; see ``AttentionMethod``."""

TRAINED = "trained"
"""The name under which a model's own method, as it was trained, is evaluated."""


def preset_names() -> list[str]:
    """List the shipped presets, in alphabetical order."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def preset(name: str, where: str = "method") -> dict[str, Any]:
    """Return what a shipped preset chooses, as plain data: a strategy per axis that it fixes.

    Args:
        name: The preset; see ``preset_names``.
        where: What names it, for messages.

    Raises:
        ValueError: If there is no such preset.
    """
    if name not in preset_names():
        raise ValueError(
            f"{where}: unknown method {shown(name)}; choose from: {', '.join(preset_names())}; or give a YAML file "
            f"of your own, by a name that ends in .yaml."
        )
    return parse_yaml(_folder().joinpath(f"{name}.yaml").read_text(encoding="utf-8"), name)


def load_preset(name: str) -> dict[str, Any]:
    """Build the strategies of a preset.

    Args:
        name: A shipped preset such as ``infoscale`` (see ``preset_names``), or the path of a YAML file of your own.
            Classes in Python files beside that file can be named by ``class_path``.

    Returns:
        A strategy per axis that the preset fixes, as ``build_strategies`` has it.

    Raises:
        ValueError: If there is no such preset or file.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"There is no method file {name!r}.")
        description = read_yaml(path)
        named = named_classes(description)  # the user has named the file, and so what stands in it
        with trusting(named), user_modules([path.parent], named):
            return build_strategies(description, name)
    if name not in preset_names():
        known = ", ".join([TRAINED, *preset_names()])
        raise ValueError(f"Unknown method {name!r}; choose from: {known}; or give a YAML file of your own.")
    return build_strategies(preset(name), name)


def explanation(name: str) -> str:
    """Return the first sentence of the comment that a shipped preset's file begins with.

    Args:
        name: The preset.
    """
    text = _folder().joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    comment = " ".join(line.lstrip("# ").rstrip() for line in lines)
    return re.split(r"\.\s+(?=[A-Z])", comment)[0].removesuffix(".")


def display_name(method: str) -> str:
    """Return what a table calls a method: a file's name without its folder and ending."""
    return Path(method).stem if method.endswith((".yaml", ".yml")) else method


def resolve_method(name: str, base: AttentionMethod, train_length: int) -> AttentionMethod:
    """Apply a preset to a model's method.

    What was trained stays: where the preset names the similarity or normalizer that the model was trained with, or a
    strategy whose parameters the model has learned, the model's own is kept, with its settings.

    Args:
        name: A preset's name, or ``trained`` for the model's own method.
        base: The model's method.
        train_length: Tokens per training row.

    Raises:
        ValueError: If there is no preset of that name.
    """
    if name == TRAINED:
        return base
    chosen = load_preset(name)
    turns = chosen.pop("turns", None)
    own = dict(base.axes())
    axes: dict[str, Any] = {
        axis: own[axis] if type(strategy) is type(own[axis]) and _is_trained(axis, own[axis]) else strategy
        for axis, strategy in chosen.items()
    }
    evaluated = base.position.evaluated()
    if "visibility" in axes and evaluated is not base.position:
        # positions drawn for training are of no concern here, and no window goes with them
        axes.setdefault("position", evaluated)
    if turns is not None:
        axes["turns"] = turns
    method = base.replace(**axes).with_train_length(train_length)
    return base if method.turns and method.describe() == base.describe() else method


def build_strategies(description: object, where: str = "method") -> dict[str, Any]:
    """Build strategies from plain data, as ``AttentionMethod.describe`` gives it.

    Args:
        description: A class path, or ``{"class_path": …, "init_args": {…}}``, per axis, and of layers in turns
            ``every``, ``local`` and ``full``; or the name of a preset.
        where: What says so, for messages.

    Returns:
        A strategy per axis, under turns that of local layers; and ``turns``, where there are any: what
        ``AttentionMethod.replace`` takes.

    Raises:
        ValueError: If an axis or a class is unknown, or an argument does not fit. Nothing that is unknown was imported.
    """
    if isinstance(description, str):
        description = preset(description, where)
    if not isinstance(description, Mapping):
        raise ValueError(f"{where} names no strategies; it should give some of the axes {', '.join(AXES)}.")
    if unknown := [axis for axis in description if axis not in (*AXES, *IN_TURNS)]:
        raise ValueError(f"{where}: unknown axis {', '.join(map(shown, unknown))}; the axes are {', '.join(AXES)}.")
    strategies: dict[str, Any] = {
        axis: METHODS.describe(AXIS_TYPES[axis], stored, f"{where}.{axis}").build()
        for axis, stored in description.items()
        if axis in AXES
    }
    in_turns = {name: description[name] for name in IN_TURNS if description.get(name) is not None}
    if in_turns:
        described = METHODS.describe(AttentionMethod, in_turns, where)
        method = described.build()
        local = described.arguments.get("local")
        replaced = [] if local is None else [axis for axis, one in local.arguments.items() if one is not None]
        strategies |= {axis: getattr(method, axis) for axis in replaced}
        strategies["turns"] = method.turns
    return strategies


def method_from(description: object, where: str = "method") -> AttentionMethod:
    """Build a method from plain data; axes that are left out get the defaults of ``AttentionMethod``.

    Args:
        description: As for ``build_strategies``.
        where: What says so, for messages.

    Raises:
        ValueError: If an axis or a class is unknown, or an argument does not fit.
    """
    return AttentionMethod().replace(**build_strategies(description, where))


def known_strategies() -> str:
    """List the strategies of each axis, a line each."""
    return "\n".join(f"{axis}: {', '.join(METHODS.names(base))}" for axis, base in AXIS_TYPES.items())


def _is_trained(axis: str, strategy: Strategy) -> bool:
    return axis in FIXED_BY_TRAINING or any(True for _ in strategy.parameters())


def _folder() -> Traversable:
    return files("configs").joinpath("method")

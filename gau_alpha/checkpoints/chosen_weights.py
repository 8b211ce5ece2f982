"""Which weights of a checkpoint are read, where it holds those that were trained and their average."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from gau_alpha.untrusted.escaping import printable

RAW = "raw"
"""The weights that the optimizer steps."""

AVERAGED = "averaged"
"""Their average over steps."""

WEIGHTS_KEY = "weights"
"""The entry of a checkpoint that says which weights stand under ``state_dict``."""

OPTION = "--weights"
"""The option that chooses."""

_RAW_STATE = "current_model_state"  # where Lightning's WeightAveraging puts the raw weights
_GOES_ON = (_RAW_STATE, "averaging_state", "optimizer_states", "lr_schedulers", "loops")
_DEFAULT = "default"
_CHOSEN: ContextVar[str | None] = ContextVar("chosen_weights", default=None)


@contextmanager
def choosing_weights(chosen: str | None) -> Iterator[None]:
    """Read these weights of checkpoints in this ``with`` block.

    Args:
        chosen: ``raw`` or ``averaged``; None: the average, where there is one that has begun, which is then told.
    """
    token = _CHOSEN.set(chosen or _DEFAULT)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def held_weights(checkpoint: Mapping[str, Any]) -> str:
    """Say which weights stand under ``state_dict``.

    Args:
        checkpoint: As read.
    """
    return AVERAGED if checkpoint.get(WEIGHTS_KEY) == AVERAGED else RAW


def choose(checkpoint: dict[str, Any], where: str) -> None:
    """Put the weights that were asked for under ``state_dict``.

    Args:
        checkpoint: As read; changed in place.
        where: The file, for messages.

    Raises:
        ValueError: If the average was asked for and there is none.
    """
    chosen, held = _CHOSEN.get(), held_weights(checkpoint)
    if chosen == _DEFAULT and held == AVERAGED:
        _announce(where)
    if chosen in (None, _DEFAULT, held):
        return
    if chosen == AVERAGED:
        raise ValueError(f"{where} holds no averaged weights: leave --weights out, or give --weights raw.")
    raw = checkpoint.get(_RAW_STATE)
    if not isinstance(raw, dict):
        raise ValueError(f"{where} holds averaged weights alone: leave --weights out.")
    checkpoint["state_dict"], checkpoint[WEIGHTS_KEY] = raw, RAW
    for name in _GOES_ON:
        checkpoint.pop(name, None)  # training goes on with both, or not at all


@cache
def _announce(where: str) -> None:
    said = f"{where}: the averaged weights are read; --weights raw reads those that were trained"
    print(printable(said), file=sys.stderr)


def take_weights(args: list[str]) -> tuple[list[str], str | None]:
    """Take ``--weights raw`` or ``--weights averaged`` out of the arguments.

    Args:
        args: The command and its options.

    Returns:
        The other arguments, and what was chosen; None if nothing was.

    Raises:
        ValueError: If it is neither, or the command is ``fit``, which goes on with both.
    """
    rest, chosen, words = [], None, iter(args)
    for word in words:
        option, equals, value = word.partition("=")
        if option != OPTION:
            rest.append(word)
            continue
        chosen = value if equals else next(words, "")
        if chosen not in (RAW, AVERAGED):
            raise ValueError(f"--weights is {chosen!r}; choose {RAW} or {AVERAGED}.")
        if args[0] == "fit":
            raise ValueError("fit goes on with the raw weights and their average both: leave --weights out.")
    return rest, chosen

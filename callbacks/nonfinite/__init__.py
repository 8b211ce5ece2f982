"""Losses and gradients that are infinite or not a number: a guard for every fit, and a step computed again."""

from callbacks.nonfinite.errors import NotFiniteError
from callbacks.nonfinite.guard import Guard
from callbacks.nonfinite.reproduction import Rerun, keep, load, rerun

__all__ = ["Guard", "NotFiniteError", "Rerun", "keep", "load", "rerun"]

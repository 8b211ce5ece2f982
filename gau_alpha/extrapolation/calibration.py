"""A table of measured temperatures in a small file, and where it lies."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gau_alpha.attention.presets import METHODS, TRAINED
from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.scaling import CalibratedScale, RandomKeysScale, Scaling
from gau_alpha.untrusted.reading import read_json
from gau_alpha.untrusted.registry import shown

CALIBRATED = "calibrated"
"""The method ``calibrated``; ``NAME_calibrated`` is the method NAME with its temperatures calibrated."""

RANDOM_KEYS = "random_keys"
"""The method ``random_keys``, made of the entropies that a calibration of ``trained`` has measured at train_length."""


FITTED = "fitted"
"""The method ``fitted``, whose temperatures were fitted to the loss; ``NAME_fitted`` likewise."""

OBJECTIVE = "objective"
"""What a calibration has aimed at, in its provenance; left out by those of entropy."""

ENTROPY, LOSS = "entropy", "loss"

OBJECTIVES = {ENTROPY: CALIBRATED, LOSS: FITTED}
"""What temperatures can be measured for, and how methods that use them are called."""


@dataclass(frozen=True)
class Calibration:
    """A table of temperatures and where it comes from.

    Attributes:
        method: Name of the method that was calibrated: a preset, or ``trained``.
        scale: The table.
        provenance: Plain data: checkpoint, documents, entropies before and after.
    """

    method: str
    scale: CalibratedScale
    provenance: dict[str, Any]

    @property
    def objective(self) -> str:
        """What it has aimed at, one of ``OBJECTIVES``."""
        return LOSS if self.provenance.get(OBJECTIVE) == LOSS else ENTROPY

    def random_keys(self) -> RandomKeysScale:
        """Make the scale for random keys of the entropies that were measured at train_length.

        Raises:
            ValueError: If the provenance holds none, or too even ones.
        """
        entropies = self.provenance.get("entropy_before")  # (K, M) by layer and length, the first being train_length
        train_length = self.provenance.get("train_length")
        if not isinstance(entropies, list) or not all(isinstance(one, list) and one for one in entropies):
            raise ValueError(f"provenance.entropy_before must list numbers for every layer, got {shown(entropies)}.")
        if type(train_length) is not int:
            raise ValueError(f"provenance.train_length must be a number of tokens, got {shown(train_length)}.")
        return RandomKeysScale([layer[0] for layer in entropies], train_length)

    def write(self, path: str | Path) -> Path:
        """Writes a small JSON file, whole or not at all."""
        content = {"method": self.method, "scaling": self.scale.describe(), "provenance": self.provenance}
        text = json.dumps(content, indent=1) + "\n"
        return write_atomic(Path(path), lambda unfinished: unfinished.write_text(text, encoding="utf-8"))

    @classmethod
    def read(cls, path: str | Path) -> "Calibration":
        """Reads such a file.

        Raises:
            ValueError: If there is none, or it is something else.
        """
        if not Path(path).is_file():
            raise ValueError(f"There is no calibration {path}: make it with `gau-alpha calibrate --ckpt_path …`.")
        content = read_json(Path(path))
        if not isinstance(content, dict):
            raise ValueError(f"{path} is not a calibration: it holds {shown(content)}.")
        if lacking := [name for name in ("method", "scaling", "provenance") if name not in content]:
            raise ValueError(f"{path} is not a calibration: it lacks {', '.join(lacking)}.")
        scale = METHODS.describe(Scaling, content["scaling"], f"{path}: scaling").build()
        method, provenance = content["method"], content["provenance"]
        if not isinstance(scale, CalibratedScale) or not isinstance(method, str) or not isinstance(provenance, dict):
            raise ValueError(f"{path} is not a calibration: it holds no table, no method's name, or no provenance.")
        documents = provenance.get("documents")
        if not isinstance(documents, list) or not all(isinstance(one, str) for one in documents):
            raise ValueError(f"{path}: provenance.documents must list what was calibrated on, got {shown(documents)}.")
        return cls(method, scale, provenance)


def is_calibrated(method: str) -> bool:
    """Say whether a method's temperatures come from a calibration, or are derived from what one has measured."""
    return method in (CALIBRATED, FITTED, RANDOM_KEYS) or method.endswith((f"_{CALIBRATED}", f"_{FITTED}"))


def objective_of(method: str) -> str:
    """Say what the temperatures of a calibrated method were measured for."""
    return LOSS if method == FITTED or method.endswith(f"_{FITTED}") else ENTROPY


def base_of(method: str) -> str:
    """Name the method that was calibrated; any other method is its own base."""
    if not is_calibrated(method):
        return method
    if method in (CALIBRATED, FITTED, RANDOM_KEYS):
        return TRAINED
    return method.removesuffix(f"_{CALIBRATED}").removesuffix(f"_{FITTED}")


def calibration_path(checkpoint: Path, base: str, objective: str = ENTROPY) -> Path:
    """Where the calibration of a method lies if nothing else is said: next to the checkpoint.

    Args:
        checkpoint: The checkpoint.
        base: The method that was calibrated.
        objective: What for, one of ``OBJECTIVES``.
    """
    kind = OBJECTIVES[objective]
    name = kind if base == TRAINED else f"{base}_{kind}"
    return checkpoint.with_name(f"{checkpoint.stem}.{name}.json")

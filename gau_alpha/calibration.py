"""A table of measured temperatures, in a small file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gau_alpha.files import write_whole
from gau_alpha.scaling import CalibratedScale


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

    def write(self, path: str | Path) -> Path:
        """Writes a small JSON file, whole or not at all."""
        content = {"method": self.method, "scaling": self.scale.describe(), "provenance": self.provenance}
        text = json.dumps(content, indent=1) + "\n"
        return write_whole(Path(path), lambda unfinished: unfinished.write_text(text, encoding="utf-8"))

    @classmethod
    def read(cls, path: str | Path) -> "Calibration":
        """Reads such a file.

        Raises:
            ValueError: If there is none, or it is something else.
        """
        if not Path(path).is_file():
            raise ValueError(f"There is no calibration {path}: make it with `gau-alpha calibrate --ckpt_path …`.")
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            scale = CalibratedScale(**content["scaling"]["init_args"])
            return cls(content["method"], scale, dict(content["provenance"]))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a calibration: {error!r}.") from error

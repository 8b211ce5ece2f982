#!/bin/sh
# jsonargparse 4.53.0: a number or a list in a YAML, where a section of class arguments belongs, passes parsing.
#
# One would expect the error that "model: {size: x}" gives. Instead `model: 3` is taken: the parsed config holds the
# number 3 in place of the section, and the class is then built with all its defaults, as if nothing had been written.
# For an argument that is a dataclass, `shape: 3` passes parsing as well, and building the class fails with a bare
# TypeError. A text in the same place is refused as it should be.
#
# Seen with Python 3.11:
#   model: 3            -> parsed 3, built Model(size=1)
#   model: []           -> parsed [], built Model(size=1)
#   model: {shape: 3}   -> parsed 3, TypeError when built
#   model: {size: x}    -> refused
#   model: text         -> refused
#
# Ends with code 1 if this changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "jsonargparse[signatures]==4.53.0"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from dataclasses import dataclass

from jsonargparse import ArgumentParser


@dataclass
class Shape:
    width: int = 1


class Model:
    def __init__(self, shape: Shape = Shape(), size: int = 1):
        self.shape, self.size = shape, size


def outcome(section):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Model, "model")
    parser.add_argument("--config", action="config")
    with open("config.yaml", "w") as file:
        file.write(f"model: {section}\n")
    try:
        config = parser.parse_args(["--config", "config.yaml"])
    except Exception:
        return "refused"
    parsed = config.model
    parsed = getattr(parsed, "shape", parsed)
    try:
        built = parser.instantiate(config).model
    except TypeError:
        return f"parsed {parsed}, TypeError when built"
    return f"parsed {parsed}, built Model(size={built.size})"


EXPECTED = {
    "3": "parsed 3, built Model(size=1)",
    "[]": "parsed [], built Model(size=1)",
    "{shape: 3}": "parsed 3, TypeError when built",
    "{size: x}": "refused",
    "text": "refused",
}
seen = {section: outcome(section) for section in EXPECTED}
for section, what in seen.items():
    print(f"model: {section:12} -> {what}")
sys.exit(seen != EXPECTED)
PYTHON

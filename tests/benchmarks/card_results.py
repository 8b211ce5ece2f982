"""The file of a card's results, with a section of the checks and one of the benchmarks."""

import platform
import re
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "results"


def put_section(title: str, lines: list[str]) -> Path:
    """Write a section into the card's file, in place of an older one of that title."""
    card = torch.cuda.get_device_name()
    path = FOLDER / f"{re.sub('[^A-Za-z0-9]+', '-', card)}.md"
    versions = f"{card}, torch {torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}"
    section = "\n".join([f"# {title}", "", versions, "", *lines]).rstrip() + "\n"
    older = re.split(r"(?m)^(?=# )", path.read_text()) if path.exists() else []
    kept = [one.rstrip() + "\n" for one in older if one.strip() and not one.startswith(f"# {title}\n")]
    path.write_text("\n".join(sorted([*kept, section])))
    return path

"""What loading a checkpoint costs over reading its file: the 24-layer, 768-wide base model, random weights.

    python tests/benchmarks/loading.py [FOLDER]

Each line compares ``GAUAlphaForMaskedLM.from_pretrained`` with ``safetensors.torch.load_file`` of the same file, or of
a file with the same six layers. The two alternate; a line gives the medians of nine and their ratio. Both map the file
instead of reading it: "load" is what it takes to hold a model, or tensors, whose bytes are still in the page cache;
"load and read" goes on until every tensor was summed, which is the ratio that matters.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.checkpoints import empty_init, read_folder

REPEATS = 9
LAYERS = 6


def make(folder: Path) -> None:
    """Write the model, and its first six layers as a file of their own."""
    with empty_init():
        model = GAUAlphaForMaskedLM(GAUAlphaConfig(12_000))
    model.to_empty(device="cpu").tie()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(folder)
    weights = read_folder(folder, num_hidden_layers=LAYERS).weights
    weights.pop("cls.predictions.decoder.weight")  # tied
    save_file(weights, folder / "first.safetensors")


def seconds(load: Callable[[], Iterable[Tensor]]) -> tuple[float, float]:
    """Time a load, and the same with every tensor read."""
    start = time.perf_counter()
    tensors = list(load())
    loaded = time.perf_counter()
    for tensor in tensors:
        tensor.sum()
    return loaded - start, time.perf_counter() - start


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else scratch)
        if not (folder / "first.safetensors").is_file():
            make(folder)
        cases = (("24 layers", "model.safetensors", None), (f"first {LAYERS}", "first.safetensors", LAYERS))
        for name, file, layers in cases:
            path = folder / file

            def ours(layers: int | None = layers) -> Iterable[Tensor]:
                return GAUAlphaForMaskedLM.from_pretrained(folder, num_hidden_layers=layers).parameters()

            def theirs(path: Path = path) -> Iterable[Tensor]:
                return load_file(path).values()

            seconds(ours), seconds(theirs)  # warm
            pairs = [(seconds(ours), seconds(theirs)) for _ in range(REPEATS)]
            for number, what in enumerate(("load", "load and read")):
                one, other = (statistics.median(pair[side][number] for pair in pairs) for side in (0, 1))
                size = path.stat().st_size / 1e6
                print(
                    f"{name}, {size:.0f} MB, {what}: {one * 1e3:.1f} ms, safetensors {other * 1e3:.1f} ms, "
                    f"ratio {one / other:.2f}"
                )


if __name__ == "__main__":
    main()

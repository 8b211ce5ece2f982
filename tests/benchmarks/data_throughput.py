"""How fast text becomes batches: ``python tests/benchmarks/data_throughput.py``.

Ratios of times taken in turns within one process, each the best of seven.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import tokenizers
import torch
import yaml

import configs
from datamodules import ByteTokenizer, PythonStandardLibrary, TextDataModule, TextFiles, TokenizerFile
from datamodules.cache import tokenize
from datamodules.tokenizers.training import train_tokenizer
from gau_alpha import GAUAlphaConfig, GAUAlphaModule


def best_seconds(*works: Callable[[], object], repeats: int = 7) -> list[float]:
    """Time each piece of work, in turns, so that a slow moment does not hit one of them only."""
    seconds = [float("inf")] * len(works)
    for _ in range(repeats):
        for number, work in enumerate(works):
            start = time.perf_counter()
            work()
            seconds[number] = min(seconds[number], time.perf_counter() - start)
    return seconds


def tokenising_over_bare_library(tmp_path: Path) -> float:
    """Time of the tokenised cache over that of the library's own batch call."""
    documents = list(PythonStandardLibrary().documents())[:400]
    for number, document in enumerate(documents):
        (tmp_path / f"{number:03}.txt").write_text(document)
    source = TextFiles(str(tmp_path / "*.txt"))
    path = str(tmp_path / "tokenizer.json")
    train_tokenizer(source, "bpe", 1000).save(path)
    bare = tokenizers.Tokenizer.from_file(path)
    ours = TokenizerFile(path)
    caches = iter(range(100))
    bare_seconds, our_seconds = best_seconds(
        lambda: bare.encode_batch_fast(documents, add_special_tokens=False),
        lambda: tokenize(source, ours, str(tmp_path / f"cache{next(caches)}")),
    )
    return our_seconds / bare_seconds


def loader_over_model(tmp_path: Path) -> float:
    """Batches per second of the loader over those of a training step of the demo's model."""
    sizes = yaml.safe_load((Path(configs.__path__[0]) / "model" / "tiny.yaml").read_text())
    data = TextDataModule(PythonStandardLibrary(), ByteTokenizer(), 64, 64, cache_dir=str(tmp_path))
    module = GAUAlphaModule(GAUAlphaConfig(vocab_size=data.vocabulary.size, **sizes), train_length=64)
    loader = data.train_dataloader()
    batches = [batch for _, batch in zip(range(20), loader, strict=False)]
    optimizer = torch.optim.AdamW(module.parameters())

    def train() -> None:
        for batch in batches[:5]:
            nll, _, count = module._evaluate(batch)
            (nll / count).backward()
            optimizer.step()
            optimizer.zero_grad()

    def load() -> None:
        for _ in zip(range(20), loader, strict=False):
            pass

    model_seconds, loader_seconds = best_seconds(train, load)
    return (model_seconds / 5) / (loader_seconds / 20)


if __name__ == "__main__":
    for measure in (tokenising_over_bare_library, loader_over_model):
        with tempfile.TemporaryDirectory() as folder:
            print(f"{measure.__name__}: {measure(Path(folder)):.2f}")

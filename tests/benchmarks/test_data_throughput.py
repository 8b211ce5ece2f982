"""How fast text becomes batches: ratios of times taken side by side, each the best of several.

Run by ``pytest -m slow tests/benchmarks``: another program on the same cores makes them fail.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import yaml

import configs
from datamodules import ByteTokenizer, PythonStandardLibrary, TextDataModule, TextFiles, TokenizerFile
from datamodules.cache import tokenize
from datamodules.tokenizers.training import train_tokenizer
from gau_alpha import GAUAlphaConfig, GAUAlphaModule

pytestmark = pytest.mark.slow


def best_seconds(*works: Callable[[], object], repeats: int = 3) -> list[float]:
    """Time each piece of work, in turns, so that a slow moment does not hit one of them only."""
    seconds = [float("inf")] * len(works)
    for _ in range(repeats):
        for number, work in enumerate(works):
            start = time.perf_counter()
            work()
            seconds[number] = min(seconds[number], time.perf_counter() - start)
    return seconds


def test_tokenising_costs_little_more_than_the_bare_library(tmp_path: Path, record_property):
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
    record_property("tokenising_over_bare_library", our_seconds / bare_seconds)
    assert our_seconds < 1.2 * bare_seconds


def test_the_loader_feeds_five_times_what_the_demo_model_takes(tmp_path: Path, record_property):
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
    ratio = (model_seconds / 5) / (loader_seconds / 20)
    record_property("loader_over_model", ratio)
    assert np.isfinite(ratio)
    assert ratio > 5

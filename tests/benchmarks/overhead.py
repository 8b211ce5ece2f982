"""What loader, logging and callbacks add to a demo training step: ``python tests/benchmarks/overhead.py [--quick]``.

The demo's model and data, once through Lightning's Trainer with the demo's logger and callbacks (its evaluation left
out: that reports its own time), once as a bare loop over batches that lie ready. Both in turns, seconds per step.
"""

import tempfile
import time
from pathlib import Path

import torch
import yaml
from harness import Timing, main, ratios, table
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

import configs
from callbacks.attention_entropy import AttentionEntropy
from datamodules import ByteTokenizer, PythonStandardLibrary, TextDataModule
from gau_alpha import GAUAlphaConfig, GAUAlphaModule
from gau_alpha.training.optimizers import parameter_groups


class Stopwatch(Callback):
    """Time from the first step's end to the last's."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == 1:
            self.start = time.perf_counter()
        self.seconds = (time.perf_counter() - self.start) / max(1, trainer.global_step - 1)


def module_for(data: TextDataModule) -> GAUAlphaModule:
    sizes = yaml.safe_load((Path(configs.__path__[0]) / "model" / "tiny.yaml").read_text())
    torch.manual_seed(0)
    return GAUAlphaModule(GAUAlphaConfig(vocab_size=data.vocabulary.size, **sizes), train_length=data.train_length)


def fitted(data: TextDataModule, steps: int, folder: str) -> float:
    watch = Stopwatch()
    callbacks = [watch, ModelCheckpoint(every_n_train_steps=steps // 2), LearningRateMonitor(), AttentionEntropy(100)]
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, logger=TensorBoardLogger(folder), callbacks=callbacks, log_every_n_steps=50,
        limit_val_batches=0, gradient_clip_val=1.0, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module_for(data), data)
    return watch.seconds


def bare(data: TextDataModule, batches: list[dict[str, torch.Tensor]]) -> float:
    module = module_for(data).train()
    optimizer = torch.optim.AdamW(parameter_groups(module.model, 0.01), fused=True)
    for number, batch in enumerate(batches):
        if number == 1:
            start = time.perf_counter()
        optimizer.zero_grad()
        nll, _, count = module._evaluate(batch)
        nll.backward()
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(1 / count)
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    return (time.perf_counter() - start) / (len(batches) - 1)


def report(quick: bool) -> list[str]:
    """Seconds per step with and without all around it."""
    steps, runs = (40, 2) if quick else (100, 7)
    seconds: dict[str, list[float]] = {"fit": [], "bare loop": []}
    with tempfile.TemporaryDirectory() as folder:
        data = TextDataModule(PythonStandardLibrary(), ByteTokenizer(), 64, 64, cache_dir=folder)
        data.setup("fit")
        batches = [batch for _, batch in zip(range(steps), data.train_dataloader(), strict=False)]
        for run in range(runs + 1):
            results = {"fit": fitted(data, steps, folder), "bare loop": bare(data, batches)}
            for name, result in results.items():
                if run:
                    seconds[name].append(result)
    times = {name: Timing(tuple(measured)) for name, measured in seconds.items()}
    rows = [[name, str(timing), ratios(timing, times["bare loop"])] for name, timing in times.items()]
    return ["## Loader, logging and callbacks, per demo step", "", *table(["way", "time", "× bare loop"], rows)]


if __name__ == "__main__":
    main(report)

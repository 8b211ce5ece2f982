"""One process of two that train together, several short runs one after the other; prints what became of each as JSON.

Arguments: the strategy, the folder to write to, names of scenarios.
"""

import hashlib
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule
from torch.distributed.fsdp._fully_shard import _fsdp_param_group
from torch.utils.data import DataLoader
from worker import bare_trainer, end, whole_weights

from callbacks.attention_entropy import AttentionEntropy
from callbacks.extrapolation import ExtrapolationEvaluation
from callbacks.nonfinite import Guard, NotFiniteError
from callbacks.recovery import AgreeOnResumePath, CollectiveTimeoutHint
from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM, GAUAlphaModule
from gau_alpha.training.optimizers import AdamW
from gau_alpha.training.schedules import Linear
from gau_alpha.vocabulary import Vocabulary

RANK = int(os.environ["LOCAL_RANK"])
POISON, OVERFLOW, LEFT_OUT = 29, 28, "left out"
# Out of memory in the midst of a pass of 32 tokens: on which processes, and from which such pass on.
SHORT_OF_MEMORY = {
    "rank 1, first batch": ((1,), 1),
    "rank 1, third batch": ((1,), 3),
    "all ranks, first batch": ((0, 1), 1),
    "all ranks, third batch": ((0, 1), 3),
}
# Out of memory once, in gathering weights, which is done by all processes together.
GATHERING = ("gathering a layer", "gathering the rest")


class Overflow(torch.autograd.Function):
    """Leaves a loss as it is, and makes its gradient infinite."""

    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf


class Noting(GAUAlphaForMaskedLM):
    """Notes the lengths that it was evaluated at, and lacks memory in its last layer where the scenario says."""

    scenario = ""

    def __init__(self, *args):
        super().__init__(*args)
        self.lengths = []
        unit = self.gau_alpha.encoder.blocks()[-1].gau
        attend = unit.forward
        unit.forward = lambda *args: (self.fail(), attend(*args))[1]

    def forward(self, input_ids, **kwargs):
        self.measured = not self.training and kwargs.get("head", True)  # by the engine, not by AttentionEntropy
        if self.measured:
            self.lengths.append(input_ids.shape[1])
            if self.scenario == "gathering a layer" and self.lengths.count(32) == 2:
                Gathering.armed = RANK == 1
        return super().forward(input_ids, **kwargs)

    def fail(self):
        ranks, batch = SHORT_OF_MEMORY.get(self.scenario, ((), 0))
        if RANK in ranks and self.measured and self.lengths[-1] == 32 and self.lengths.count(32) >= batch:
            raise torch.OutOfMemoryError("CUDA out of memory")


class Gathering(Callback):
    """Lets the next gathering of weights lack memory, before another process could learn of it."""

    armed = False
    happened = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if Noting.scenario == "gathering the rest" and trainer.global_step == 2:
            Gathering.armed = RANK == 1


def gather(*args, original=_fsdp_param_group.foreach_all_gather):
    if Gathering.armed:
        Gathering.armed = False
        Gathering.happened += 1
        raise torch.OutOfMemoryError("CUDA out of memory")
    return original(*args)


_fsdp_param_group.foreach_all_gather = gather


class Module(GAUAlphaModule):
    def _build_model(self, config, method, kernel):
        return Noting(config, method, kernel)

    def training_step(self, batch, batch_idx):
        if Noting.scenario == "no memory to train" and RANK == 1 and batch_idx == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        loss = super().training_step(batch, batch_idx)
        return Overflow.apply(loss) if (batch["input_ids"] == OVERFLOW).any() else loss


class Data(LightningDataModule):
    vocabulary = Vocabulary(30, 1, 0)
    train_length = 8

    def __init__(self, special, documents, targets):
        super().__init__()
        self.special, self.num_documents, self.targets = special, documents, targets

    def evaluation_documents(self):
        return [np.random.default_rng(seed).integers(2, 28, size=100) for seed in range(self.num_documents)]

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(RANK)
        batches = []
        for number, (rank, token) in enumerate(self.special):
            ids = torch.randint(2, 28, (2, 8), generator=generator)
            labels = torch.where(torch.arange(8) < (2 if self.targets == "all" or RANK == 0 else 0), ids, -100)
            if rank == RANK and isinstance(token, int):
                ids[1, 7] = token
            numbers = torch.tensor([4 * number + 2 * RANK, 4 * number + 2 * RANK + 1])
            if token != LEFT_OUT:
                batches.append({"input_ids": ids, "labels": labels, "sample_ids": numbers})
        return DataLoader(batches, batch_size=None)


def build():
    torch.manual_seed(0)
    config = GAUAlphaConfig(
        30, 16, 24, 8, 2, attention_probs_dropout_prob=0.0, tie_word_embeddings=False, initializer_range=0.3,
        hidden_dropout_prob=0.0,
    )  # fmt: skip
    module = Module(config, train_length=8, optimizer=AdamW(1e-2), schedule=Linear(warmup=0.0, final=1.0))
    with torch.no_grad():
        module.model.gau_alpha.embeddings.word_embeddings.weight[POISON] = math.nan
    return module


def digest(module):
    whole = whole_weights(module).values()
    return hashlib.sha256(b"".join(x.nan_to_num(7.0).numpy().tobytes() for x in whole)).hexdigest()


def fit(strategy, folder, callbacks, special=((0, None),) * 3, documents=12, targets="all"):
    module = build()
    said = {}
    trainer = bare_trainer(strategy, 2, default_root_dir=folder, callbacks=callbacks, use_distributed_sampler=False)
    try:
        trainer.fit(module, datamodule=Data(special, documents, targets))
        said["weights"] = digest(module)
    except (NotFiniteError, ValueError) as error:
        said["error"] = str(error)
    said |= {"steps": trainer.global_step, "calls": module.model.lengths}
    return said


def rows(folder):
    return [
        [(row["length"], row["status"], row["num_documents"]) for row in json.loads(path.read_text())["rows"]]
        for path in sorted(folder.glob("extrapolation/step_*/extrapolation.json"))
    ]


def run(strategy, folder, scenario):
    Noting.scenario = scenario
    evaluation = ExtrapolationEvaluation(
        2, length_ratios=[1, 2, 4, 8], max_tokens=None, tokens_per_batch=64, output_dir=str(folder)
    )
    measuring = [Gathering(), evaluation, AttentionEntropy(1)]
    good, poisoned, overflowing = (0, None), (1, POISON), (1, OVERFLOW)
    match scenario:
        case "no callback":
            return fit(strategy, folder, [])
        case "no targets on rank 1":
            return fit(strategy, folder, measuring, targets="none on rank 1")
        case "one document":
            return fit(strategy, folder, measuring, documents=1)
        case "nan":
            return fit(strategy, folder, [Guard()], (good, poisoned, good))
        case "overflow":
            return fit(strategy, folder, [Guard()], (good, overflowing, good))
        case "skipped":
            return fit(strategy, folder, [Guard(max_skips=2)], (good, poisoned, overflowing, good))
        case "other checkpoints":
            return fit(strategy, folder, [AgreeOnResumePath(f"seen by {RANK}.ckpt")])
        case "left out":
            return fit(strategy, folder, [], (good, (1, LEFT_OUT), (1, LEFT_OUT), good))
        case "no memory to train":
            return fit(strategy, folder, [Guard(), CollectiveTimeoutHint()])
        case "beyond the limit":
            return fit(strategy, folder, [Guard(max_skips=1)], (good, poisoned, overflowing, good))
    return fit(strategy, folder, measuring)


if __name__ == "__main__":
    torch.set_num_threads(1)
    heard = {}
    for number, scenario in enumerate(sys.argv[3:]):
        folder = Path(sys.argv[2]) / str(number)
        heard[scenario] = run(sys.argv[1], folder, scenario)
        heard[scenario] |= {"gathering failed": Gathering.happened, "rows": rows(folder) if RANK == 0 else None}
        Gathering.happened = 0
    print(json.dumps(heard))
    end()

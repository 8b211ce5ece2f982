"""What a GPU makes of it: ``make gpu-bench``, or ``python tests/benchmarks/gpu.py [--quick]``.

bfloat16. A step and a pass are given as tokens per second, TFLOP/s and the share of the rate of an 8192³ product that
is measured in the same turns; FLOPs are those of the products, counted by formula (``flops``), with nothing that is
computed again. ``--quick`` takes tiny sizes, and runs on a CPU too: it checks the program, not the machine.
"""

import argparse
import tempfile
import time
from collections.abc import Callable

import lightning.pytorch as pl
import numpy as np
import torch
from baseline_model import PlainBERT
from card_results import put_section
from fused import Fused
from harness import MatrixProduct, Timing, alternately, machine, table
from torch.nn import functional as F
from torch.utils.data import DataLoader

from callbacks.extrapolation import ExtrapolationEvaluation
from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM, GAUAlphaModule
from gau_alpha.attention.kernels import Blocked
from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.presets import resolve_method
from gau_alpha.training.batch import with_targets
from gau_alpha.training.loss import masked_lm_loss
from gau_alpha.training.optimizers import parameter_groups
from gau_alpha.vocabulary import Vocabulary

VOCABULARY, RUNS, WARMUPS = 12_000, 7, 3
HEADS = ["", "time", "tokens/s", "TFLOP/s", "matrix rate, TFLOP/s", "share", "memory, GiB"]


def flops(config: GAUAlphaConfig, rows: int, length: int, targets: int, positions: int) -> float:
    """FLOPs of the products of a forward pass.

    Args:
        config: Sizes.
        rows: Of the batch.
        length: Tokens of each.
        targets: Of all rows.
        positions: Of each row that the last layer computes.
    """
    hidden, width, key_size = config.hidden_size, config.intermediate_size, config.attention_key_size
    total = 0.0
    for layer in range(config.num_hidden_layers):
        queries = positions if layer == config.num_hidden_layers - 1 else length
        total += 2.0 * rows * length * hidden * (2 * width + key_size)
        total += 2.0 * rows * queries * (width * hidden + length * (key_size + width))
    return total + 2.0 * targets * hidden * config.vocab_size


class RandomTokens(pl.LightningDataModule):
    """Rows and documents in memory: what is timed reads no files.

    Args:
        train_length: Tokens of a row.
        rows: Of a batch.
        steps: Batches.
        documents: Of 16 rows' length each.
    """

    vocabulary = Vocabulary(VOCABULARY, 1, 0)

    def __init__(self, train_length: int, rows: int, steps: int, documents: int) -> None:
        super().__init__()
        self.train_length, self.rows, self.steps, self.documents = train_length, rows, steps, documents

    def train_dataloader(self) -> DataLoader:
        ids = torch.randint(2, VOCABULARY, (self.rows * self.steps, self.train_length))
        labels = torch.where(torch.rand(ids.shape) < 0.15, ids, -100)
        rows = [{"input_ids": one, "labels": label} for one, label in zip(ids, labels, strict=True)]
        return DataLoader(rows, self.rows)  # type: ignore[arg-type]  # torch takes a list

    def evaluation_documents(self) -> list[np.ndarray]:
        shape = (self.documents, 16 * self.train_length)
        return list(np.random.default_rng(0).integers(2, VOCABULARY, shape))


class Bench:
    """Measures on a device, and keeps rows of tables."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.runs = 2 if quick else RUNS
        self.matrix = MatrixProduct(torch.bfloat16, 512 if quick else 8192, str(self.device))
        self.lines: list[str] = []

    def seconds(self, work: Callable[[], object]) -> float:
        """Time a piece of work to its end on the device."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def row(self, name: str, work: Callable[[], object], tokens: int, total: float) -> list[str]:
        """Measure work of so many tokens and FLOPs, in turns with the matrix product."""
        for _ in range(WARMUPS):
            self.seconds(work)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        pairs = [(self.seconds(self.matrix), self.seconds(work)) for _ in range(self.runs)]
        matrix, ours = (Timing(tuple(times)) for times in zip(*pairs, strict=True))
        rate, reached = self.matrix.rate(matrix), total / ours.median
        memory = torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else float("nan")
        return [
            name, str(ours), f"{tokens / ours.median:,.0f}", f"{reached / 1e12:.1f}", f"{rate / 1e12:.0f}",
            f"{reached / rate:.2f}", f"{memory:.2f}",
        ]  # fmt: skip

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)

    def step(self, model: torch.nn.Module, loss_of: Callable[[], torch.Tensor]) -> Callable[[], None]:
        """Build a training step: forward, backward, AdamW."""
        optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=1e-4, fused=True)

        def step() -> None:
            with self.autocast():
                loss = loss_of()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    def training(self, layers: int, length: int, tokens: int) -> None:
        """Steps as they are, compiled, and of a BERT of as many parameters with torch's attention."""
        if self.quick:
            layers, length, tokens = 2, 32, 128
        ids = torch.randint(2, VOCABULARY, (tokens // length, length))
        labels = torch.where(torch.rand(ids.shape) < 0.15, ids, -100)
        batch = {name: one.to(self.device) for name, one in with_targets({"input_ids": ids, "labels": labels}).items()}
        num_targets, positions = len(batch["targets"]), batch["target_positions"].shape[1]
        found = []
        for compiled in (False, True):
            config = GAUAlphaConfig(VOCABULARY, num_hidden_layers=layers)
            model = GAUAlphaForMaskedLM(config).to(self.device).train()
            if compiled:
                for block in model.gau_alpha.encoder.blocks():
                    block.compile(backend="aot_eager" if self.quick else "inductor")

            def loss_of(model=model) -> torch.Tensor:
                loss, _, count = masked_lm_loss(model, batch)
                return loss / count

            total = 3 * flops(config, *ids.shape, num_targets, positions)
            name = f"{layers} × 768, {ids.shape[0]} × {length}, {'compiled' if compiled else 'as it is'}"
            found.append(self.row(name, self.step(model, loss_of), tokens, total))
            del model, loss_of
        bert = PlainBERT(VOCABULARY, layers=layers // 2, max_length=length).to(self.device).train()
        parameters = sum(one.numel() for one in bert.encoder.parameters())

        def bert_loss() -> torch.Tensor:
            return F.cross_entropy(bert(batch["input_ids"]).flatten(0, 1)[batch_index], batch["targets"])

        flat = torch.arange(ids.shape[0])[:, None] * length + batch["target_positions"].cpu()
        batch_index = flat.flatten()[batch["target_index"].cpu()].to(self.device)
        attention = 4.0 * (layers // 2) * tokens * length * 768
        total = 3 * (2.0 * tokens * (parameters + 768 * VOCABULARY) + attention)
        found.append(
            self.row(f"BERT, {layers // 2} × 768, torch's attention", self.step(bert, bert_loss), tokens, total)
        )
        self.lines += [f"## Training, {tokens:,} tokens a step", "", *table(HEADS, found)]

    @torch.no_grad()
    def evaluation(self, length: int) -> None:
        """Passes over one long row, 15 % of it targets."""
        layers = 24
        if self.quick:
            length, layers = 256, 2
        config = GAUAlphaConfig(VOCABULARY, num_hidden_layers=layers)
        ids = torch.randint(2, VOCABULARY, (1, length), device=self.device)
        targets = torch.randperm(length, device=self.device)[: length * 15 // 100].sort().values[None]  # (1, T)
        found = []
        for name in ("softmax", "windowed", "streaming_llm", "rerope"):
            method = resolve_method(name, base=AttentionMethod(), train_length=64 if self.quick else 512)
            model = GAUAlphaForMaskedLM(config, method).to(self.device).eval()

            def work(model=model) -> None:
                with self.autocast():
                    model(ids, target_positions=targets)

            total = flops(config, 1, length, targets.shape[1], targets.shape[1])
            cells = self.row(name, work, length, total)
            if name in ("windowed", "streaming_llm"):
                cells[3:6] = ["", cells[4], ""]  # they compute less than the formula counts
            found.append(cells)
        self.lines += [f"## Evaluation, {layers} × 768, {length:,} tokens", "", *table(HEADS, found)]

    def callback(self, layers: int, length: int, rows: int, steps: int) -> None:
        """Fits with two evaluations as ``ExtrapolationEvaluation`` makes them by default, and with none."""
        documents = 65_536 // length  # the callback takes so many tokens of each length
        if self.quick:
            layers, length, rows, steps, documents = 2, 32, 4, 4, 2
        config = GAUAlphaConfig(VOCABULARY, num_hidden_layers=layers)
        data = RandomTokens(length, rows, steps, documents)

        def fit(callbacks: list[pl.Callback]) -> None:
            pl.Trainer(
                accelerator="gpu" if self.device.type == "cuda" else "cpu", devices=1, precision="bf16-mixed",
                max_steps=steps, callbacks=callbacks, logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False,
            ).fit(GAUAlphaModule(config, length), datamodule=data)  # fmt: skip
            self.wait()

        with tempfile.TemporaryDirectory() as folder:
            evaluate = ExtrapolationEvaluation
            works = {
                "without": lambda: fit([]),
                "with": lambda: fit([evaluate(steps // 2, output_dir=folder)]),
            }
            times = alternately(works, 1 if self.quick else 3)
        without, having = times["without"].median, times["with"].median
        each, step = (having - without) / 2, without / steps
        rarely = each / (each + 1_000 * step)
        found = [
            [f"{steps} steps", str(times["without"])],
            ["with two evaluations", str(times["with"])],
            ["share of evaluations", f"{1 - without / having:.1%}"],
            ["an evaluation", f"{each:.2f} s, as {each / step:.0f} steps"],
            ["share of one every 1,000 steps", f"{rarely:.1%}"],
        ]
        title = f"## ExtrapolationEvaluation in a fit, {layers} × {config.hidden_size}, {rows} × {length}"
        self.lines += [title, "", *table(["", ""], found)]

    @torch.no_grad()
    def kernels(self, rows: int, length: int) -> None:
        """One layer's attention: ours, torch's fused one in slices, and FlexAttention."""
        from torch.nn.attention.flex_attention import flex_attention

        if self.quick:
            rows, length = 2, 128
        layout = SequenceLayout.of(length, self.device)
        plan = AttentionMethod().plan(layout, 128)
        query, key = torch.randn(2, rows, length, 128, device=self.device).unbind()
        value = torch.randn(rows, length, 1536, device=self.device, dtype=torch.bfloat16)
        flex = flex_attention if self.quick else torch.compile(flex_attention)
        low_query, low_key = query.bfloat16()[:, None], key.bfloat16()[:, None]
        works = {
            "blocked": lambda: Blocked()(query, key, value, plan),
            "blocked, compiled": lambda: compiled(query, key, value, plan),
            "torch's fused, values in slices of 128": lambda: Fused()(query, key, value, plan),
            "FlexAttention, one head": lambda: flex(low_query, low_key, value[:, None], scale=1.0),
        }
        compiled = torch.compile(Blocked(), backend="aot_eager" if self.quick else "inductor")
        found = []
        for name, work in works.items():

            def autocast(work=work) -> None:
                with self.autocast():
                    work()

            try:
                found.append(self.row(name, autocast, rows * length, 2.0 * rows * length**2 * (128 + 1536)))
            except Exception as error:
                if name.startswith("blocked"):
                    raise  # ours has to run; of others it is a result that they don't
                reason = str(error).strip().splitlines() or [type(error).__name__]
                found.append([name, f"not run: {reason[0][:80]}", *[""] * 5])
        self.lines += [f"## Attention alone, {rows} × {length:,} tokens", "", *table(HEADS, found)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, on any device")
    quick = parser.parse_args().quick
    if not quick and not torch.cuda.is_available():
        raise SystemExit("No CUDA device: run this on a machine with a GPU, or with --quick to try the program.")
    bench = Bench(quick)
    print(machine(), flush=True)
    parts: list[tuple[Callable[..., None], tuple[int, ...]]] = [
        (bench.training, (24, 512, 32_768)),
        (bench.training, (6, 64, 32_768)),
        (bench.evaluation, (32_768,)),
        (bench.evaluation, (131_072,)),
        (bench.kernels, (64, 512)),
        (bench.kernels, (2, 8_192)),
        (bench.callback, (24, 512, 64, 40)),
        (bench.training, (24, 512, 65_536)),
    ]
    for part, arguments in parts:
        before = len(bench.lines)
        part(*arguments)
        print("\n".join(bench.lines[before:]), flush=True)
        if not quick:
            put_section("gpu-bench", bench.lines)  # what is measured is kept, whatever becomes of the rest


if __name__ == "__main__":
    main()

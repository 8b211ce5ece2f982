"""Attention entropy measured while training."""

from typing import cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from gau_alpha.extrapolation import preserve_training_state
from gau_alpha.extrapolation.diagnostics import AttentionMeter, Diagnostics
from gau_alpha.extrapolation.distributed import Ranks
from gau_alpha.model import GAUAlphaForMaskedLM, GAUAlphaModel
from gau_alpha.untrusted.limits import require_whole

_LAYOUT = ("input_ids", "attention_mask", "position_ids", "segment_ids", "token_type_ids")


class AttentionEntropy(Callback):
    """Logs how widely each layer attends on the training batch, every so many optimizer steps.

    Scalars ``attention/entropy/layer_<kk>`` in nats and ``attention/entropy/mean``, and with ``distances`` also
    ``attention/near/…``, the share of attention on keys within half of the training length on either side, and under
    ``SinkSoftmax`` ``attention/sink/…``, against the optimizer step. All are means over the real tokens of all
    processes' batches. One more forward pass per logged step, without dropout and gradients; training goes on exactly
    as if nothing had been measured.

    Args:
        every_n_train_steps: Optimizer steps between measurements.
        distances: Whether to measure how much attention stays near.

    Raises:
        ValueError: If ``every_n_train_steps`` is below 1.
    """

    def __init__(self, every_n_train_steps: int, distances: bool = False) -> None:
        require_whole("every_n_train_steps", every_n_train_steps)
        self.every_n_train_steps = every_n_train_steps
        self.distances = distances
        self._last_step = 0  # optimizer step of the last measurement

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers where a resumed run begins."""
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: dict[str, torch.Tensor],
        batch_idx: int,
    ) -> None:
        """Measures if a multiple of ``every_n_train_steps`` was reached since the last time."""
        if trainer.global_step // self.every_n_train_steps > self._last_step // self.every_n_train_steps:
            self._last_step = trainer.global_step
            self._measure(trainer, pl_module, batch)

    def _measure(self, trainer: Trainer, pl_module: LightningModule, batch: dict[str, torch.Tensor]) -> None:
        model = cast(GAUAlphaModel, pl_module.model)
        train_length = cast(int, pl_module.train_length)
        # With several choices per row, each is a row of its own.
        layout = {name: batch[name].flatten(0, -2) for name in _LAYOUT if name in batch}  # (B, L) each
        input_ids = layout["input_ids"]
        num_layers = model.config.num_hidden_layers
        meter = AttentionMeter(num_layers, input_ids.shape[1], train_length, self.distances)
        real = layout.get("attention_mask")
        meter_of_real_tokens = meter if real is None else _RealQueries(meter, real.bool())
        with preserve_training_state(model), trainer.precision_plugin.forward_context():
            if isinstance(model, GAUAlphaForMaskedLM):
                model(**layout, observer=meter_of_real_tokens, head=False)  # sharded weights are gathered by this call
            else:
                model.encode(**layout, observer=meter_of_real_tokens)  # the head has nothing to do with attention
        assert meter.sums is not None, "every layer calls the meter"
        num_queries = float(input_ids.numel() if real is None else real.bool().sum())
        ranks = Ranks(input_ids.device)
        sums = ranks.total(meter.sums.sum(0).flatten().cpu().numpy())[None]  # (1, K · C)
        found = Diagnostics.from_sums(sums, int(ranks.total(np.array([num_queries]))[0]), num_layers)
        metrics = _scalars("attention/entropy", found.entropy.tolist())
        if found.sink.any():
            metrics |= _scalars("attention/sink", found.sink.tolist())
        if self.distances:
            metrics |= _scalars("attention/near", found.near.tolist())
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)


class _RealQueries:
    """Hands a meter the blocks with the queries of padding taken out.

    Args:
        meter: The meter.
        real: (B, L) bool.
    """

    def __init__(self, meter: AttentionMeter, real: torch.Tensor) -> None:
        self.meter = meter
        self.real = real

    def __call__(
        self,
        layer: int,
        weights: torch.Tensor,
        query_index: torch.Tensor,
        key_index: torch.Tensor,
        entropy: torch.Tensor | None,
        sink: torch.Tensor | None,
    ) -> None:
        """Adds blocks; see ``AttentionMeter``."""
        real = self.real[:, query_index[0].clamp(max=self.real.shape[1] - 1)]  # (B, N, Lq)
        if self.meter.distances:
            weights = weights * real[..., None]
        entropy, sink = (None if one is None else one * real for one in (entropy, sink))
        self.meter(layer, weights, query_index, key_index, entropy, sink)


def _scalars(name: str, by_layer: list[float]) -> dict[str, float]:
    """A scalar per layer, and their mean."""
    return {
        **{f"{name}/layer_{layer:02}": value for layer, value in enumerate(by_layer)},
        f"{name}/mean": sum(by_layer) / len(by_layer),
    }

"""The cost of single-mask in counted multiplications, which no busy machine changes; ``single_mask.py`` times it."""

from dataclasses import replace

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.extrapolation import EvaluationOptions, ExtrapolationEngine
from gau_alpha.vocabulary import Vocabulary

LENGTH, POSITIONS = 512, 64


def count(work) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops()


def test_64_positions_cost_less_than_64_passes_and_far_less_than_the_published_script():
    config = GAUAlphaConfig(4000, 48, 96, 16, 4)
    model = GAUAlphaForMaskedLM(config).eval()
    tokens = np.random.default_rng(0).integers(2, 4000, size=LENGTH)
    input_ids = torch.from_numpy(tokens)[None]
    options = EvaluationOptions([1], "single-mask", POSITIONS, num_resamples=1)
    unwatched = replace(options, entropy=False, distances=False)
    engine = ExtrapolationEngine([tokens], Vocabulary(4000, 1, 0), LENGTH, unwatched)
    ours = count(lambda: list(engine.evaluate(model, {"own": model.method})))
    whole = count(lambda: model.cls(model.encode(input_ids)[:, 0]))  # all layers everywhere, logits of one position
    published = count(lambda: model(input_ids))
    # One of four layers does without scores and values, gates and output projection of all positions but one.
    assert ours < 0.85 * POSITIONS * whole
    # Logits of all positions would be half of the work, even with a small vocabulary.
    assert ours < 0.5 * POSITIONS * published
    watched = ExtrapolationEngine([tokens], Vocabulary(4000, 1, 0), LENGTH, options)
    extra = count(lambda: list(watched.evaluate(model, {"own": model.method}))) - ours
    assert 0 < extra < 0.5 * whole, "looking at attention costs the last layer of one pass"

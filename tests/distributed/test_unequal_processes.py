"""Two processes train; one lacks memory, documents, targets or finite numbers, and the other is not left waiting."""

import math

import pytest
from process_harness import ended, heard, start_scripts

from callbacks.nonfinite import load, rerun

SHORT_OF_MEMORY = ("rank 1, first batch", "rank 1, third batch", "all ranks, first batch", "all ranks, third batch")
GATHERING = ("gathering a layer", "gathering the rest")
FITS = ("no callback", "measured", "one document", "no targets on rank 1", *SHORT_OF_MEMORY)
GUARDED = ("nan", "overflow", "skipped", "left out", "beyond the limit", "other checkpoints")

pytestmark = pytest.mark.slow


def both(said, scenario):
    """What both processes said; they ended at the same step, with the same weights."""
    first, second = (one[scenario] for one in said)
    assert first["steps"] == second["steps"]
    assert first.get("weights") == second.get("weights")
    return first, second


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_evaluations_in_fit_never_leave_a_process_waiting(tmp_path, strategy):
    """Whatever happens in them, training then ends in the weights of a run without them."""
    gathering = GATHERING if strategy == "fsdp" else ()
    said = heard(start_scripts("fit_worker.py", strategy, tmp_path, *FITS, *gathering), timeout=60)
    alone, _ = both(said, "no callback")
    assert alone["steps"] == 3
    for scenario in ("measured", "one document", *SHORT_OF_MEMORY, *gathering):
        first, _ = both(said, scenario)
        assert first["weights"] == alone["weights"], scenario
        assert len(first["rows"]) == 2, "measured at step 2, and at the end"
    lengths = [8, 16, 32, 64]
    for scenario in SHORT_OF_MEMORY:
        first, second = both(said, scenario)
        assert first["calls"] == second["calls"], "all ran the same number of passes of the same length"
        statuses = ["ok", "ok", "out of memory", "out of memory"]
        assert first["rows"] == 2 * [[[x, y, 12 if y == "ok" else 0] for x, y in zip(lengths, statuses, strict=True)]]
    for scenario in gathering:
        first, second = both(said, scenario)
        assert (first["gathering failed"], second["gathering failed"]) == (0, 1)
        assert first["rows"] == both(said, "measured")[0]["rows"], "smaller batches fitted"
    assert both(said, "one document")[0]["rows"][0] == [[length, "ok", 1] for length in lengths]
    assert both(said, "no targets on rank 1")[0]["steps"] == 3


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_what_is_not_finite_on_one_process_stops_both(tmp_path, strategy):
    said = heard(start_scripts("fit_worker.py", strategy, tmp_path, *GUARDED), timeout=60)
    for rank, one in enumerate(said):
        assert "step 2 was skipped: the loss is not finite on process 1. Process" in one["nan"]["error"]
        assert f"Process {rank} had the rows {[4 + 2 * rank, 5 + 2 * rank]}" in one["nan"]["error"]
        assert "step 2 was skipped: the gradient, summed over processes" in one["overflow"]["error"]
        assert "step 3 was skipped" in one["beyond the limit"]["error"]
        assert f"rank 0 from seen by 0.ckpt, rank {rank} from seen by {rank}.ckpt" in one["other checkpoints"]["error"]
        assert one["other checkpoints"]["steps"] == 0
    folder = tmp_path / str(GUARDED.index("nan")) / "not_finite" / "step_2"
    assert sorted(path.name for path in folder.iterdir()) == [
        "rank_0.safetensors",
        "rank_1.safetensors",
        "weights.ckpt",
    ]
    assert load(folder / "rank_1.safetensors")[1]["sample_ids"] == [6, 7]
    reruns = [rerun(folder / f"rank_{rank}.safetensors", accelerator="cpu") for rank in range(2)]
    assert [math.isfinite(x.losses[0]) for x in reruns] == [True, False]
    assert [math.isfinite(x.gradient_norm) for x in reruns] == [True, False]
    skipped, left_out = both(said, "skipped")[0], both(said, "left out")[0]
    assert skipped["weights"] == left_out["weights"]
    assert (skipped["steps"], left_out["steps"]) == (4, 2)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_process_without_memory_to_train_ends_both(tmp_path, strategy):
    """Training can't go on without it; the other learns at once that it is gone, and says so."""
    first, second = ended(start_scripts("fit_worker.py", strategy, tmp_path, "no memory to train"), timeout=60)
    assert second.code, "lacks memory"
    assert "OutOfMemoryError" in second.errors
    assert first.code
    assert "Process 0, at step 1: another process has ended. Its own output says why." in first.errors

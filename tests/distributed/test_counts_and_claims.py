"""What a run says that it has read is the same on one process and on two; two processes claim an output as one."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from process_harness import alone, holding, run_together, torchrun
from small_run import on_cpu, write_config, write_corpus

from gau_alpha.checkpoints import read_checkpoint

EXPORT = {"class_path": "callbacks.export.ExportHuggingFace", "init_args": {}}


@pytest.fixture(scope="module")
def corpus(slow, tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "texts")


def fit(folder, corpus, file, processes, batch_size):
    config = write_config(folder, corpus, [EXPORT])
    args = ["fit", "--config", str(config), *on_cpu(file, processes), "--data.batch_size", str(batch_size)]
    done = run_together(folder, args, processes, torchrun if processes > 1 else alone)
    assert [one.code for one in done] == [0] * processes, done
    return folder / "run/one"


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    layouts = (("cpu.yaml", 1, 4), ("ddp.yaml", 2, 2), ("fsdp.yaml", 2, 2))
    return [fit(place / file, corpus, file, processes, size) for file, processes, size in layouts]


def test_what_was_read_is_counted_over_all_processes(runs):
    seen = [read_checkpoint(run / "checkpoints/last.ckpt")["run"]["seen"] for run in runs]
    assert seen[0] == seen[1] == seen[2]
    assert seen[0]["documents"] == 8 * 4, "eight steps of four rows"
    assert 0 < seen[0]["tokens"] <= 8 * 4 * 16
    exported = [json.loads((run / "huggingface/training_data.json").read_text())["seen"] for run in runs]
    assert exported == seen


def test_sharded_processes_predict_a_number_of_batches_that_is_not_theirs(runs, tmp_path):
    """They wait for each other in every pass: with three batches for two, one would be left waiting."""
    tables = []
    for file, processes in (("cpu.yaml", 1), ("fsdp.yaml", 2)):
        args = ["predict", "--ckpt_path", str(runs[0] / "checkpoints/last.ckpt"), *on_cpu(file, processes)]
        args += ["--data.batch_size", "255", "--predictions.output", str(tmp_path / f"{processes}.parquet")]
        done = run_together(tmp_path / file, args, processes, torchrun if processes > 1 else alone)
        assert [one.code for one in done] == [0] * processes, done
        tables.append(pq.read_table(tmp_path / f"{processes}.parquet"))
    assert tables[0]["row"].to_pylist() == tables[1]["row"].to_pylist() == list(range(12))
    means = [np.stack(table["mean"].to_pylist()) for table in tables]
    np.testing.assert_allclose(*means, rtol=1e-5, atol=1e-5)


def test_two_processes_claim_an_output_as_one(runs, tmp_path):
    checkpoint = runs[0] / "checkpoints/last.ckpt"
    args = ["predict", "--ckpt_path", str(checkpoint), *on_cpu("ddp.yaml", 2)]
    args += ["--predictions.output", str(tmp_path / "p.parquet")]
    with holding(tmp_path / ".p.parquet.lock") as holder:
        refused = run_together(tmp_path / "refused", args, 2)
    assert [one.code for one in refused] == [2, 2], refused
    for one in refused:
        assert f"p.parquet is in use by process {holder} on" in one.output
    done = run_together(tmp_path / "done", args, 2)
    assert [one.code for one in done] == [0, 0], done
    assert done[0].output.count("12 rows: ") == 1
    assert pq.read_table(tmp_path / "p.parquet")["row"].to_pylist() == list(range(12))
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"p.parquet"}

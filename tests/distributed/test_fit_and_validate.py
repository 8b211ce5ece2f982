"""Two and three processes on one machine: they measure what one process does, while they train and afterwards."""

import json

import pytest
from process_harness import run_together
from small_run import MEASURING, extrapolate, on_cpu, rows, validation_results, write_config, write_corpus

from gau_alpha.cli import main

pytestmark = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "strategy"), [(2, "ddp.yaml"), (3, "ddp.yaml"), (2, "fsdp.yaml")])
def test_many_measure_as_one_does(tmp_path, processes, strategy, capfd):
    config = write_config(tmp_path, write_corpus(tmp_path / "texts"), [MEASURING])
    ended = run_together(tmp_path, ["fit", "--config", str(config), *on_cpu(strategy, processes)], processes)
    assert [one.code for one in ended] == [0] * processes, ended
    if strategy == "ddp.yaml":  # see the end of gau_alpha.cli.lightning.run
        assert all("threads of gloo left: 0 of" in one.output for one in ended)
    run = tmp_path / "run/one"
    measured = run / "extrapolation/step_8/extrapolation.json"
    assert json.loads(measured.read_text())["run"]["world_size"] == processes

    assert main([*extrapolate(run, tmp_path / "alone"), *on_cpu("cpu.yaml", 1)]) == 0
    table = rows(tmp_path / "alone/extrapolation.json")
    assert [row["status"] for row in table] == ["ok"] * 6
    assert table[0]["num_documents"] == 7, "dealt unevenly"
    assert rows(measured) == table

    validate = ["validate", "--ckpt_path", str(run / "checkpoints/last.ckpt"), "--trainer.logger", "false"]
    together = run_together(tmp_path, [*validate, *on_cpu(strategy, processes)], processes)
    assert [one.code for one in together] == [0] * processes, together
    capfd.readouterr()
    assert main([*validate, *on_cpu("cpu.yaml", 1)]) == 0
    alone = validation_results(capfd.readouterr().out)
    assert len(alone) == 3
    # rows are dealt one by one, so that batches are others, and float32 sums over them round otherwise
    assert validation_results(together[0].output) == pytest.approx(alone, rel=1e-6)

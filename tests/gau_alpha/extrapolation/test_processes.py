"""Real processes that evaluate together: the same table whatever their number, and agreement on what goes wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("extrapolation_worker.py")

pytestmark = pytest.mark.slow


def run_workers(folder: Path, world_size: int, scenario: str) -> list[dict]:
    """What each of some real gloo processes has to say."""
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    store = folder / f"store{world_size}"
    store.unlink(missing_ok=True)
    processes = [
        subprocess.Popen(
            [sys.executable, WORKER, str(rank), str(world_size), str(store), scenario],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for rank in range(world_size)
    ]  # fmt: skip
    said = []
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        said.append(json.loads(out.splitlines()[-1]))
    return said


@pytest.mark.parametrize("scenario", ["plain", "single-mask", "single-mask sampled"])
def test_one_two_and_three_processes_print_the_same_table(tmp_path, scenario):
    (alone,) = run_workers(tmp_path, 1, scenario)
    assert [row["status"] for row in alone["rows"]] == ["ok"] * 6 + ["no documents"] * 2
    assert alone["rows"][4]["num_documents"] == 1, "fewer documents than processes"
    assert alone["rows"][0]["loss_low"] is not None
    assert alone["rows"][0]["layers"]["distance_share"]
    assert (alone["rows"][2]["loss_sampling_low"] is not None) == (scenario == "single-mask sampled")
    for world_size in (2, 3):
        for said in run_workers(tmp_path, world_size, scenario):
            assert said["rows"] == alone["rows"]  # to the last digit: JSON keeps them all
    if scenario == "single-mask sampled":  # most of its passes look at no attention, and skip a part of the last layer
        for said in run_workers(tmp_path, 2, scenario + ", sharded"):
            assert said["rows"] == alone["rows"]


def test_gains_are_the_same_on_one_two_and_three_processes(tmp_path):
    (alone,) = run_workers(tmp_path, 1, "copy")
    assert [row["distance"] for row in alone["rows"]] == [4, 4, 24, 24, 56, 56, 120, 120]
    assert all(row["gain"] for row in alone["rows"][:6])
    assert alone["rows"][0]["gain_low"] < alone["rows"][0]["gain_high"]
    for world_size in (2, 3):
        for said in run_workers(tmp_path, world_size, "copy"):
            assert said["rows"] == alone["rows"]


def test_documents_of_very_different_weight_and_one_document_on_two_processes(tmp_path):
    (alone,) = run_workers(tmp_path, 1, "3, 50 and 400 targets")
    assert [(row["num_documents"], row["num_targets"]) for row in alone["rows"]] == [(3, 3 + 50 + 400), (1, 3)]
    for world_size in (2, 3):
        for said in run_workers(tmp_path, world_size, "3, 50 and 400 targets"):
            assert said["rows"] == alone["rows"]


def test_a_resumed_table_is_the_same_on_all_processes(tmp_path):
    (alone,) = run_workers(tmp_path, 1, "plain")
    said = run_workers(tmp_path, 2, "resumed")
    for one in said:
        assert one["rows"] == alone["rows"]
        assert 8 not in one["calls"], "what is finished is not measured again, on any process"
        assert 64 in one["calls"]


@pytest.mark.parametrize(
    ("scenario", "calls"),
    [
        # Two rows per batch, six batches, three per process; then one row; then one row in blocks of half the size.
        ("all ranks, first batch", 1 + 1 + 1),
        ("rank 1, first batch", 1 + 1 + 1),
        ("rank 1, third batch", 3 + 1 + 1),
        ("all ranks, third batch", 3 + 1 + 1),
        ("rank 1, third batch, sharded", 3 + 1 + 1),
    ],
)
def test_processes_agree_on_a_lack_of_memory(tmp_path, scenario, calls):
    said = run_workers(tmp_path, 2, scenario)
    assert said[0]["rows"] == said[1]["rows"]
    assert [row["status"] for row in said[0]["rows"]] == ["ok", "ok", "out of memory", "out of memory"]
    assert said[0]["calls"] == said[1]["calls"], "all run the same number of passes of the same length"
    assert said[0]["calls"].count(32) == calls
    assert 64 not in said[0]["calls"]


@pytest.mark.parametrize("sharded", ["", ", sharded"], ids=["", "sharded"])
def test_an_error_on_one_process_ends_all(tmp_path, sharded):
    first, second = run_workers(tmp_path, 2, "error on rank 1" + sharded)
    assert first["error"] == "RuntimeError: The evaluation failed on another process, which says why."
    assert second["error"] == "KeyError: 'broken'"

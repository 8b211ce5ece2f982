"""torchrun: two "nodes" of one process each, and a group of workers that is started again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from process_harness import differences, ended, free_port, run_together
from small_run import MEASURING, extrapolate, on_cpu, rows, validation_results, write_config, write_corpus

from gau_alpha.cli import main

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


class KillOnce(Callback):
    """Kills a process of the first group of workers that torchrun starts."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if first and (trainer.global_rank, trainer.global_step) == (1, 5):
            os.kill(os.getpid(), signal.SIGKILL)


def ip(*args):
    return subprocess.run(["ip", *args], capture_output=True, text=True, timeout=20, check=False)


@pytest.fixture(scope="module")
def nodes(slow):
    """How to start a command on each of two nodes, and their addresses.

    Two network namespaces joined by a pair of virtual cards; each has nothing else, not even the other's loopback.
    """
    names, cards = [f"gau{os.getpid()}{end}" for end in "ab"], [f"gau{os.getpid() % 10**8}{end}" for end in "ab"]
    addresses = ["10.213.77.1", "10.213.77.2"]
    steps = [["netns", "add", name] for name in names]
    steps += [["link", "add", cards[0], "netns", names[0], "type", "veth", "peer", cards[1], "netns", names[1]]]
    for name, card, address in zip(names, cards, addresses, strict=True):
        steps += [["-n", name, "addr", "add", f"{address}/24", "dev", card]]
        steps += [["-n", name, "link", "set", one, "up"] for one in (card, "lo")]
    try:
        failed = "there is no command ip"
        done = [ip(*step) for step in steps] if shutil.which("ip") else []
        if done and not any(one.returncode for one in done):
            prefixes = [
                ["ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={card}"]
                for name, card in zip(names, cards, strict=True)
            ]
            yield list(zip(prefixes, addresses, strict=True))
        else:
            failed = next((one.stderr.strip() for one in done if one.returncode), failed)
            warnings.warn(f"both nodes are on the loopback: no network namespaces here ({failed})", stacklevel=1)
            yield [(["env", "GLOO_SOCKET_IFNAME=lo"], "127.0.0.1")] * 2
    finally:
        for name in names:
            if shutil.which("ip"):
                ip("netns", "del", name)


def run_on(nodes, args, timeout=150):
    """Run a command of ours on both nodes as the README says; return what they print."""
    port, started = free_port(), []
    for number, (prefix, address) in enumerate(nodes):
        command = [*prefix, *TORCHRUN, "--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "c10d"]
        command += ["--rdzv_endpoint", f"{nodes[0][1]}:{port}"]
        # What real machines find out by their names, which these two share.
        command += ["--rdzv_conf", f"is_host={number == 0}", "--local_addr", address, "-m", "gau_alpha.cli"]
        started.append(
            subprocess.Popen(
                [*command, *args, *on_cpu("ddp_multinode.yaml", 1)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = ended(started, timeout)
    assert [one.code for one in said] == [0, 0], "\n".join(one.errors[-3000:] for one in said)
    return "".join(one.output for one in said)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "texts")


@pytest.fixture(scope="module")
def fitted(nodes, tmp_path_factory, corpus):
    """The folder of a run that two nodes have trained together."""
    folder = tmp_path_factory.mktemp("nodes")
    run_on(nodes, ["fit", "--config", str(write_config(folder, corpus, [MEASURING]))])
    return folder / "run/one"


@pytest.fixture(scope="module")
def table(fitted, tmp_path_factory):
    """What one process measures."""
    folder = tmp_path_factory.mktemp("alone")
    assert main([*extrapolate(fitted, folder), *on_cpu("cpu.yaml", 1)]) == 0
    found = rows(folder / "extrapolation.json")
    assert [row["status"] for row in found] == ["ok"] * 6
    assert found[0]["num_documents"] == 7, "dealt unevenly"
    return found


@pytest.mark.slow
def test_two_nodes_train_and_their_callback_measures_what_one_process_does(fitted, table):
    measured = json.loads((fitted / "extrapolation/step_8/extrapolation.json").read_text())
    assert measured["run"]["world_size"] == 2
    assert rows(fitted / "extrapolation/step_8/extrapolation.json") == table
    assert json.loads((fitted / "run.json").read_text())["world"]["nodes"] == 2


@pytest.mark.slow
def test_two_nodes_extrapolate_as_one_process_does(nodes, fitted, table, tmp_path):
    run_on(nodes, extrapolate(fitted, tmp_path))
    assert rows(tmp_path / "extrapolation.json") == table


@pytest.mark.slow
def test_two_nodes_validate_as_one_process_does(nodes, fitted, capfd):
    args = ["validate", "--ckpt_path", str(fitted / "checkpoints/last.ckpt"), "--trainer.logger", "false"]
    together = validation_results(run_on(nodes, args))
    capfd.readouterr()
    assert main([*args, *on_cpu("cpu.yaml", 1)]) == 0
    alone = validation_results(capfd.readouterr().out)
    assert len(alone) == 3
    # rows are dealt one by one, so that batches are others, and float32 sums over them round otherwise
    assert together == pytest.approx(alone, rel=1e-6)


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_its_group_goes_on(tmp_path, corpus):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    options = [*on_cpu("ddp.yaml", 2), "--auto_resume", "true"]
    undisturbed = run_together(alone, ["fit", "--config", str(write_config(alone, corpus)), *options], 2)
    assert [one.code for one in undisturbed] == [0, 0], undisturbed
    config = write_config(killed, corpus, [{"class_path": f"{__name__}.KillOnce"}])
    command = [*TORCHRUN, "--standalone", "--nproc_per_node", "2", "--max-restarts", "1", "-m", "gau_alpha.cli"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # see configs/trainer/ddp_multinode.yaml
    done = subprocess.run(
        [*command, "fit", "--config", str(config), *options],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, restarted = done.stderr.split("starting afresh")  # once
    assert "resuming from" not in first
    assert "saved at step 4" in restarted
    last = "run/one/checkpoints/last.ckpt"
    assert differences(alone / last, killed / last) == []

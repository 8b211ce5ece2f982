"""``predict`` embeds texts: any length, in their order, the same in a batch as alone, on one process as on two."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file

from callbacks import prediction_progress, predictions
from callbacks.predictions import PredictionWriter, as_table
from datamodules import ByteTokenizer
from datamodules.full_documents import batch_bounds, batches_left
from gau_alpha import GAUAlphaModule
from gau_alpha.checkpoints.atomic_write import NotWrittenError
from gau_alpha.cli import main

TEXTS = ["a", "abcdefgh" * 100, "", "héé", "bc" * 7, "中国", *(f"{'ab' * n}{n}" for n in range(20))]
QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


@pytest.fixture
def lines(tmp_path):
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return ["--data.source", "datamodules.JsonLines", "--data.source.paths", "texts.jsonl"]


def alone(run):
    """Embeddings of each text by itself, without padding."""
    model = GAUAlphaModule.load_from_checkpoint(run.checkpoint).model.eval()
    for text in TEXTS:
        ids = torch.tensor(ByteTokenizer().encode_batch([text])[0].astype(np.int64))[None]
        if not ids.shape[1]:
            yield torch.zeros(2, 16)
            continue
        with torch.no_grad():
            hidden = model.encode(ids)[0]  # (L, H)
        yield torch.stack([hidden.mean(0), hidden[0]])


@pytest.mark.parametrize("suffix", ["parquet", "safetensors", "jsonl"])
def test_a_padded_batch_gives_what_each_text_gives_alone(run, lines, tmp_path, suffix, capsys):
    output = tmp_path / f"out/embeddings.{suffix}"
    args = ["predict", "--ckpt_path", str(run.checkpoint), *QUIET, *lines, "--predictions.output", str(output)]
    assert main(args) == 0
    assert f"{len(TEXTS)} rows: {output}" in capsys.readouterr().out
    if suffix == "safetensors":
        found = load_file(output)
    elif suffix == "parquet":
        table = pq.read_table(output)
        assert table["row"].to_pylist() == list(range(len(TEXTS)))
        found = {name: np.array(table[name].to_pylist()) for name in ("mean", "first", "num_tokens")}
    else:
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        found = {name: np.array([row[name] for row in rows]) for name in ("mean", "first", "num_tokens")}
    assert found["num_tokens"].tolist() == [len(text.encode()) for text in TEXTS]
    expected = torch.stack(list(alone(run))).numpy()
    np.testing.assert_allclose(found["mean"], expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(found["first"], expected[:, 1], atol=1e-5)
    assert [path.name for path in output.parent.iterdir()] == [output.name]  # no parts, no temporary files


def test_nothing_is_hidden_and_a_single_text_is_enough(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"bc\r\n\n  \n")))
    args = ["predict", "--ckpt_path", str(run.checkpoint), *QUIET, "--data.source", "datamodules.StandardInput"]
    assert main([*args, "--predictions.output", "one.safetensors"]) == 0
    model = GAUAlphaModule.load_from_checkpoint(run.checkpoint).model.eval()
    with torch.no_grad():
        hidden = model.encode(torch.tensor([[98, 99]]))[0]
    np.testing.assert_allclose(load_file(tmp_path / "one.safetensors")["mean"][0], hidden.mean(0).numpy(), atol=1e-5)


@pytest.mark.parametrize(("text", "words"), [(b"", "no text"), (b"\xff\xfe", "not UTF-8")])
def test_standard_input_without_text(run, monkeypatch, capsys, text, words):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    args = ["predict", "--ckpt_path", str(run.checkpoint), *QUIET, "--data.source", "datamodules.StandardInput"]
    assert main(args) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_write_the_same_file(run, lines, tmp_path):
    args = ["predict", "--ckpt_path", str(run.checkpoint), *QUIET, *lines]
    for devices in ("1", "2"):
        more = ["--predictions.output", f"{devices}.parquet", "--trainer.devices", devices]
        more += ["--trainer.strategy", "ddp"] if devices == "2" else []
        command = [sys.executable, "-m", "gau_alpha.cli", *args, *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    one, two = (pq.read_table(tmp_path / f"{devices}.parquet") for devices in "12")
    assert one.equals(two)
    assert len(one) == len(TEXTS)
    assert not list(tmp_path.glob("*.part-*"))


def test_a_folder_is_embedded_with_its_own_sizes_and_method(run, lines, tmp_path):
    assert main(["convert", str(run.checkpoint), "folder", "--weights_only"]) == 0
    data = {
        "class_path": "datamodules.TextDataModule",
        "init_args": {
            "source": {"class_path": "datamodules.JsonLines", "init_args": {"paths": "texts.jsonl"}},
            "tokenizer": {"class_path": "datamodules.TokenizerFile", "init_args": {"path": "folder/tokenizer.json"}},
            "train_length": 16,
        },
    }
    (tmp_path / "data.yaml").write_text(json.dumps(data))
    outputs = []
    for model in (["--model.init_from", "folder", "--data", "data.yaml"], ["--ckpt_path", str(run.checkpoint), *lines]):
        outputs.append(f"{len(outputs)}.safetensors")
        assert main(["predict", *model, *QUIET, "--predictions.output", outputs[-1]]) == 0
    one, two = (load_file(tmp_path / name) for name in outputs)
    np.testing.assert_allclose(one["mean"], two["mean"], atol=1e-5)


def test_an_ending_that_is_no_format(run, lines, capsys):
    args = ["predict", "--ckpt_path", str(run.checkpoint), *QUIET, *lines, "--predictions.output", "x.csv"]
    assert main(args) == 2
    assert ".parquet, .safetensors, .jsonl" in capsys.readouterr().err


WITH_LITTLE_ROOM = """
import resource, sys
from gau_alpha.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), -1))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["parquet", "safetensors", "jsonl"])
def test_a_full_disk_is_told_in_one_message(run, tmp_path, suffix):
    """By a limit to the size of files, below that of a part or, for JSON lines, of what it becomes."""
    (tmp_path / "lines.txt").write_text("".join(f"line {number} of many\n" for number in range(400)))
    source = ["--data.source.class_path", "datamodules.TextFiles", "--data.source.paths", '["lines.txt"]']
    source += ["--data.source.per_line", "true", "--data.cache_dir", str(tmp_path / "cache")]
    args = ["predict", "--ckpt_path", str(run.checkpoint), *source, "--predictions.output", f"out/p.{suffix}"]
    assert main(args) == 0
    whole = (tmp_path / f"out/p.{suffix}").read_bytes()
    room = {"parquet": 20_000, "safetensors": 20_000, "jsonl": len(whole) - 100}[suffix]
    command = [sys.executable, "-c", WITH_LITTLE_ROOM, str(room), *args]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count("The disk is full: ") == 1
    assert (tmp_path / f"out/p.{suffix}").read_bytes() == whole
    assert not (tmp_path / f"out/.p.{suffix}.lock").exists()
    assert main(args) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"p.{suffix}"]


HOLDING = """
import sys
from pathlib import Path
from gau_alpha.checkpoints.lock import Lock
lock = Lock(Path(sys.argv[1]))
lock.acquire("")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_two_do_not_write_one_output_at_once(run, lines, capsys):
    args = ["predict", "--ckpt_path", str(run.checkpoint), *QUIET, *lines, "--predictions.output"]
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDING, ".p.parquet.lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        capsys.readouterr()
        assert main([*args, "p.parquet"]) == 2
        error = capsys.readouterr().err
        assert f"p.parquet is in use by process {other.pid} on" in error
        assert "--predictions.output" in error
        assert main([*args, "q.parquet"]) == 0
    finally:
        other.communicate("")
    assert main([*args, "p.parquet"]) == 0


def test_missing_rows_are_noticed(tmp_path):
    class Trainer:
        is_global_zero, global_rank, world_size, datamodule, limit_predict_batches = True, 0, 1, None, 1.0

        class strategy:
            @staticmethod
            def barrier():
                pass

            @staticmethod
            def broadcast(value):
                return value

            @staticmethod
            def lightning_module_state_dict():
                return {}

    class Module:
        model = None

    writer = PredictionWriter(str(tmp_path / "x.parquet"))
    writer.setup(Trainer, Module, "predict")
    writer.on_predict_start(Trainer, Module)
    writer.on_predict_batch_end(Trainer, Module, {"sample_ids": torch.tensor([0, 2])}, None, 0)
    with pytest.raises(ValueError, match="2 rows up to number 2"):
        writer.on_predict_end(Trainer, Module)
    assert not (tmp_path / "x.parquet").exists()


def test_rows_that_fill_a_batch_up_are_not_written():
    table = as_table({"sample_ids": torch.tensor([4, -1]), "label": torch.tensor([1, 0])}, ["no", "yes"])
    assert table.to_pylist() == [{"row": 4, "label": "yes"}]


def test_batches_keep_the_order_and_the_number_of_tokens():
    lengths = np.random.default_rng(0).integers(0, 40, 200)
    lengths[77] = 1000  # a batch of its own
    bounds = batch_bounds(lengths, 100)
    assert (bounds[0], bounds[-1]) == (0, 200)
    sizes = [(last - first) * max(1, lengths[first:last].max()) for first, last in pairwise(bounds)]
    assert all(size <= 100 or last - first == 1 for size, (first, last) in zip(sizes, pairwise(bounds), strict=True))
    assert np.mean([size for size in sizes if size <= 100]) > 50  # batches are filled
    assert batch_bounds(np.array([], dtype=np.int64), 10) == [0]


def test_batches_that_are_done_are_left_out():
    bounds, done = [0, 3, 5, 6, 9], np.array([0, 1, 2, 5, 6, 8, 20])
    nothing = np.empty(0, dtype=np.int64)
    assert batches_left(bounds, done, num_processes=1) == [1, 3]
    assert batches_left(bounds, done, num_processes=3) == [0, 1, 3]  # as many for every process
    assert batches_left(bounds, np.arange(9), num_processes=1) == [0]
    assert batches_left(bounds, nothing, num_processes=3) == [0, 0, 1, 1, 2, 3]
    assert batches_left([0], nothing, num_processes=2) == []
    for processes in range(1, 10):
        listed = batches_left(bounds, nothing, processes)
        assert set(listed) == {0, 1, 2, 3}
        assert len(listed) % processes == 0


def test_long_documents_are_cut_where_a_cap_says_so(run, lines, caplog):
    args = ["predict", "--ckpt_path", str(run.checkpoint), *QUIET, *lines, "--data.predict_length", "20"]
    with caplog.at_level("INFO"):
        assert main([*args, "--predictions.output", "p.parquet"]) == 0
    lengths = [len(text.encode()) for text in TEXTS]
    assert pq.read_table("p.parquet")["num_tokens"].to_pylist() == [min(20, length) for length in lengths]
    cut = sum(length > 20 for length in lengths)
    assert f"predict: {cut} of {len(TEXTS)} documents are cut to their first 20 tokens" in caplog.text


# Kills its process, as the system would, after so many batches.
KILLED = """
import os, signal, sys
from callbacks.predictions import PredictionWriter
from gau_alpha.cli import main
seen, take = [], PredictionWriter.on_predict_batch_end
def counting(self, *args):
    take(self, *args)
    seen.append(1)
    if len(seen) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
PredictionWriter.on_predict_batch_end = counting
sys.exit(main(sys.argv[2:]))
"""


def predict_and_kill(after, args):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(after), *args], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_killed_run_goes_on_and_writes_the_same_file(run, lines, tmp_path, suffix, capsys):
    args = ["predict", "--ckpt_path", str(run.checkpoint), *QUIET, *lines, "--data.batch_size", "4"]
    args += ["--predictions.seconds_between_saves", "0"]
    once, killed = ([*args, "--predictions.output", f"{name}.{suffix}"] for name in ("once", "killed"))
    assert main(once) == 0
    folder, told = tmp_path / f"killed.{suffix}.unfinished", []
    times = (2, 1) if suffix == "parquet" else (3,)
    for after in times:
        code, said = predict_and_kill(after, killed)
        assert code == -signal.SIGKILL, said
        told.append(len(list(folder.glob("*.parquet"))))
        assert not (tmp_path / f"killed.{suffix}").exists()
    assert told == list(np.cumsum(times))
    assert main(killed) == 0
    assert "rows are there already" in capsys.readouterr().out
    assert (tmp_path / f"killed.{suffix}").read_bytes() == (tmp_path / f"once.{suffix}").read_bytes()
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.slow
def test_a_run_killed_when_all_was_predicted_goes_on(run, lines, tmp_path):
    args = ["predict", "--ckpt_path", str(run.checkpoint), *QUIET, *lines, "--predictions.output"]
    assert main([*args, "once.parquet"]) == 0
    interrupted = [*args, "p.parquet", "--predictions.seconds_between_saves", "0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions, "write_atomic", fail)
        assert main(interrupted) == 1
    assert main(interrupted) == 0
    assert (tmp_path / "p.parquet").read_bytes() == (tmp_path / "once.parquet").read_bytes()


def fail(*args):
    raise NotWrittenError("no room")


@pytest.mark.slow
def test_what_another_command_left_is_not_gone_on_from(run, lines, tmp_path, capsys):
    args = ["predict", "--ckpt_path", str(run.checkpoint), *QUIET, *lines, "--predictions.output", "p.parquet"]
    code, said = predict_and_kill(1, [*args, "--predictions.seconds_between_saves", "0"])
    assert code == -signal.SIGKILL, said
    folder = tmp_path / "p.parquet.unfinished"
    before = sorted(folder.iterdir())
    for more, topic in (
        (["--data.predict_length", "9"], "data"),
        (["--model.method.scaling", "NoScaling", "--trainer.precision", "bf16-true"], "precision"),
    ):
        assert main([*args, *more]) == 2
        error = capsys.readouterr().err
        assert f"{folder.name} holds what another command has predicted" in error
        assert f"{topic}" in error.split("its ")[1].split(" differ")[0]
    assert sorted(folder.iterdir()) == before
    assert main([*args, "--trainer.limit_predict_batches", "1"]) == 0  # begins anew: its rows are others
    assert not folder.exists()


def test_progress_is_told_where_there_is_no_terminal(run, lines, monkeypatch, capsys):
    monkeypatch.setattr(prediction_progress, "_FIRST_LINE", 0.0)
    monkeypatch.setattr(prediction_progress, "_BETWEEN_LINES", 0.0)
    args = ["predict", "--ckpt_path", str(run.checkpoint), "--trainer.accelerator", "cpu", *lines]
    assert main([*args, "--predictions.output", "p.parquet", "--data.batch_size", "4"]) == 0
    told = re.findall(r"predicted (\d+)% of the work, batch (\d+) of (\d+), about (\S+) left", capsys.readouterr().out)
    shares, batches = [int(one[0]) for one in told], [int(one[1]) for one in told]
    assert batches == list(range(1, int(told[0][2]) + 1))
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert shares[1] > 90, "the second batch is the one long document"
    assert told[-1][3] == "0:00:00"


@pytest.mark.parametrize("suffix", ["parquet", "safetensors", "jsonl"])
def test_what_is_written_has_the_permissions_of_any_file(run, lines, tmp_path, suffix):
    before = os.umask(0o027)
    try:
        args = ["predict", "--ckpt_path", str(run.checkpoint), *QUIET, *lines]
        assert main([*args, "--predictions.output", f"p.{suffix}"]) == 0
        assert main(["convert", str(run.checkpoint), "folder", "--weights_only"]) == 0
    finally:
        os.umask(before)
    written = [tmp_path / f"p.{suffix}", *(tmp_path / "folder").iterdir()]
    assert len(written) > 4
    assert {path.name: path.stat().st_mode & 0o777 for path in written} == {path.name: 0o640 for path in written}

"""Checkpoints on disk: checksum, disk full, which one a run goes on from, schedules of changed length."""

import errno
import hashlib
import os
import random
import zipfile
from collections import OrderedDict

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from callbacks.recovery.preemption import _confine
from callbacks.recovery.resume import latest_valid_checkpoint
from gau_alpha.checkpoints import find_corruption, load_plain
from gau_alpha.checkpoints.atomic_write import NotWrittenError, remove_unfinished, write_atomic
from gau_alpha.checkpoints.checksum import read_hashed
from gau_alpha.checkpoints.io import WholeCheckpointIO

CONTENT = {"state_dict": {"weight": torch.arange(300.0)}, "global_step": 7}
HYPER = {"config": {"vocab_size": 4, "hidden_size": 16, "num_hidden_layers": 1}, "train_length": 16, "method": {}}
RUN = "0" * 32
TRAINABLE = {
    **CONTENT,
    "run": {"id": RUN},
    "hyper_parameters": HYPER,
    "optimizer_states": [],
    "lr_schedulers": [],
    "loops": {},
}


def saved(path, content=CONTENT):
    WholeCheckpointIO().save_checkpoint(content, path)
    return path


def test_plain_torch_lightning_and_zip_read_it(tmp_path):
    path = saved(tmp_path / "a.ckpt")
    for read in (load_plain(path), torch.load(path, weights_only=True), TorchCheckpointIO().load_checkpoint(path)):
        assert torch.equal(read["state_dict"]["weight"], CONTENT["state_dict"]["weight"])
    assert torch.load(path, mmap=True, weights_only=True)["global_step"] == 7
    assert zipfile.ZipFile(path).testzip() is None
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_every_single_flipped_byte_is_found(tmp_path):
    path = saved(tmp_path / "a.ckpt")
    assert find_corruption(path) is None
    whole = path.read_bytes()
    for index in {*random.Random(0).sample(range(len(whole)), 300), *range(len(whole) - 100, len(whole))}:
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        assert find_corruption(path), index


def test_every_truncation_is_refused(tmp_path):
    path = saved(tmp_path / "a.ckpt")
    whole = path.read_bytes()
    for size in random.Random(0).sample(range(len(whole)), 60):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"a\.ckpt"):
            load_plain(path)


def test_without_a_checksum_changed_tensors_are_found(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save(CONTENT, path)
    assert find_corruption(path) is None
    content = path.read_bytes()
    at = content.index(CONTENT["state_dict"]["weight"].numpy().tobytes())
    path.write_bytes(content[: at + 9] + b"x" + content[at + 10 :])
    assert "data/0" in find_corruption(path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch, code):
    path = saved(tmp_path / "a.ckpt")
    before = path.read_bytes()

    def full(content, file):
        file.write(b"x" * 100)
        file.flush()
        raise RuntimeError("writer failed") from OSError(code, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(NotWrittenError, match=r"a\.ckpt could not be written \(100 bytes.* bytes are free"):
        saved(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_other_errors_stay_what_they_are(tmp_path):
    def broken(path):
        raise PermissionError(errno.EACCES, "no")

    with pytest.raises(PermissionError):
        write_atomic(tmp_path / "a", broken)


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    left = f".a.ckpt.{'0' * 32}.gau-alpha-unfinished"
    others = [".a.ckpt.123", ".hidden", f".b.ckpt.{'0' * 32}.gau-alpha-unfinished"]
    for name in (left, *others):
        (tmp_path / name).write_text("x")
    assert [path.name for path in remove_unfinished([tmp_path / "a.ckpt"])] == [left]
    assert sorted(os.listdir(tmp_path)) == sorted(others)


def test_processes_of_one_number_write_under_different_names(tmp_path, monkeypatch):
    """Containers that share a folder have them."""
    monkeypatch.setattr("os.getpid", lambda: 7)
    names = []
    for _ in range(2):
        write_atomic(tmp_path / "a", lambda path: (names.append(path.name), path.write_text("x")))
    assert len(set(names)) == 2


def test_what_was_read_is_what_is_hashed(tmp_path):
    path, other = saved(tmp_path / "a.ckpt"), saved(tmp_path / "b.ckpt", {**CONTENT, "global_step": 8})
    hashes = [hashlib.sha256(one.read_bytes()).hexdigest() for one in (path, other)]

    def replaced_meanwhile(path):
        content = load_plain(path)
        if other.exists():
            other.replace(path)
        return content

    content, digest = read_hashed(path, replaced_meanwhile)
    assert (content["global_step"], digest) == (8, hashes[1])
    with pytest.raises(ValueError, match="replaced while it was read"):
        read_hashed(path, lambda path: saved(path))


def aged(path, seconds):
    os.utime(path, (seconds, seconds))
    return path


def test_the_latest_valid_checkpoint_is_chosen_and_the_reason_told(tmp_path):
    old, older = (
        aged(saved(tmp_path / "old.ckpt", TRAINABLE), 200),
        aged(saved(tmp_path / "older.ckpt", TRAINABLE), 100),
    )
    assert latest_valid_checkpoint(tmp_path.glob("*.ckpt"), RUN).path == old
    content = old.read_bytes()
    old.write_bytes(content[:700] + b"xx" + content[702:])
    aged(old, 200)
    aged(saved(tmp_path / "weights.ckpt", {**CONTENT, "hyper_parameters": HYPER}), 300)
    path, reasons = latest_valid_checkpoint(tmp_path.glob("*.ckpt"), RUN)
    assert path == older
    assert latest_valid_checkpoint([older], "1" * 32).path is None, "another run's"
    assert "weights only" in reasons[0]
    assert "old.ckpt is damaged" in reasons[1]
    assert "saved at step 7" in reasons[2]
    older.unlink()
    path, reasons = latest_valid_checkpoint(tmp_path.glob("*.ckpt"), RUN)
    assert path is None
    assert "starting afresh" in reasons[-1]


def test_a_checkpoint_names_no_files_outside_its_folder(tmp_path):
    precious, folder = tmp_path / "precious.txt", tmp_path / "checkpoints"
    precious.write_text("x")
    folder.mkdir()
    (folder / "a.ckpt").write_text("x")
    sneaky = f"{folder}/../precious.txt"
    state = {"best_model_path": sneaky, "last_model_path": str(precious), "dirpath": "/", "kth_best_model_path": 3}
    state["best_k_models"] = {sneaky: 1.0, "/elsewhere/a.ckpt": 2.0}
    _confine(state, folder, "min")
    assert state["best_k_models"] == {str(folder / "a.ckpt"): 2.0}
    assert (state["best_model_path"], state["last_model_path"]) == ("", "")
    assert state["kth_best_model_path"] == str(folder / "a.ckpt")  # the worst of those that it may remove


class Made:
    """Becomes, where it is unpickled, what a function returns."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def with_attribute():
    weights = OrderedDict(weight=torch.zeros(1))
    weights.move_to_end = "x"
    return weights


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.empty(10**6, 10**6, device="meta"), "plain numbers"),
        (torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8), "plain numbers"),
        (Made(torch.Tensor, 1000, 1000), "fewer numbers"),
        (Made(bytearray, 10**15), "MemoryError"),
        (Made(bytearray, 10), "bytearray"),
        (torch.zeros(3).untyped_storage(), "Storage"),
        (with_attribute(), "attribute 'move_to_end'"),
    ],
)
def test_what_a_file_does_not_hold_is_not_made(tmp_path, value, said):
    torch.save({**CONTENT, "more": value}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=said):
        load_plain(tmp_path / "a.ckpt")


def test_tensors_that_share_their_numbers_are_counted_once(tmp_path):
    weight = torch.zeros(100_000)
    torch.save([weight] + [weight[i:] for i in range(100)], tmp_path / "a.ckpt")
    assert len(load_plain(tmp_path / "a.ckpt")) == 101


def test_a_compressed_archive_is_not_looked_through(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**7))
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda self: pytest.fail("that takes as long as it has bytes"))
    with pytest.raises(ValueError, match="compressed"):
        load_plain(tmp_path / "a.ckpt")


def test_permissions_are_those_of_any_new_file(tmp_path):
    """Whatever the writer leaves: that of safetensors lets nobody else read."""

    def write(path):
        path.unlink()
        path.touch(0o600)

    before = os.umask(0o022)
    try:
        assert write_atomic(tmp_path / "a", write).stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)

"""300 spoiled checkpoints: each ends in one message and code 2; nothing is run, nothing written outside the folder."""

import io
import os
import pickle
import random
import zipfile

import pytest
import torch

from gau_alpha.cli import main


class Code:
    """Unpickled by a careless reader, it makes a folder."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def truncated(content, checkpoint, dice, target):
    return content[: dice.randrange(len(content))]


def flipped(content, checkpoint, dice, target):
    at = dice.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :]


def swapped(content, checkpoint, dice, target):
    weights = checkpoint["state_dict"]
    one, two = dice.sample(sorted(weights), 2)
    while weights[one].shape == weights[two].shape:
        one, two = dice.sample(sorted(weights), 2)
    return torch_bytes({**checkpoint, "state_dict": {**weights, one: weights[two], two: weights[one]}})


def key_missing(content, checkpoint, dice, target):
    weights = dict(checkpoint["state_dict"])
    del weights[dice.choice(sorted(weights))]
    return torch_bytes({**checkpoint, "state_dict": weights})


def part_missing(content, checkpoint, dice, target):
    part = dice.choice(["state_dict", "hyper_parameters"])
    return torch_bytes({name: value for name, value in checkpoint.items() if name != part})


def key_foreign(content, checkpoint, dice, target):
    weights = {**checkpoint["state_dict"], f"model.{dice.random()}": torch.ones(2)}
    return torch_bytes({**checkpoint, "state_dict": weights})


def code_in_state(content, checkpoint, dice, target):
    return torch_bytes({**checkpoint, "state_dict": {**checkpoint["state_dict"], "x": Code(target)}})


def code_in_hyper_parameters(content, checkpoint, dice, target):
    return torch_bytes({**checkpoint, "hyper_parameters": {**checkpoint["hyper_parameters"], "x": Code(target)}})


def plain_pickle(content, checkpoint, dice, target):
    return pickle.dumps({"state_dict": {}, "hyper_parameters": Code(target)})


def record_named(name):
    def spoil(content, checkpoint, dice, target):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name or str(target), bytes(1_000_000))
        return stream.getvalue()

    return spoil


KINDS = {
    truncated: 90,
    flipped: 110,
    swapped: 12,
    key_missing: 20,
    part_missing: 6,
    key_foreign: 20,
    code_in_state: 12,
    code_in_hyper_parameters: 12,
    plain_pickle: 6,
    record_named("archive/data.pkl"): 4,
    record_named("../../outside/data.pkl"): 4,
    record_named(""): 4,
}
# Most by the two that start quickest: all commands read by the same function.
COMMANDS = ("fit", "validate", "test", "predict", "extrapolate", "calibrate", *("convert", "fill-mask") * 27)


def torch_bytes(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def command(name, run, path, folder):
    if name == "convert":
        return ["convert", str(path), str(folder / "converted")]
    if name == "fill-mask":
        return ["fill-mask", "--model", str(path), "ab[MASK]d"]
    here = ["--ckpt_path", str(path), "--trainer.logger", "false", "--trainer.default_root_dir", str(folder)]
    if name == "fit":
        return ["fit", "--config", str(run.config), *here]
    return [name, *here]


def listing(*folders):
    return {path for folder in folders for path in folder.rglob("*")}


def outcome(args):
    try:
        return main(args)
    except SystemExit as ended:
        return ended.code


@pytest.mark.slow
def test_300_corruptions(run, corpus, tmp_path, capsys):
    dice = random.Random(0)
    content = run.checkpoint.read_bytes()
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    path, target = folder / "spoiled.ckpt", outside / "made"
    kinds = [kind for kind, count in KINDS.items() for _ in range(count)]
    assert len(kinds) == 300
    before = listing(outside, corpus, run.config.parent)
    faults = []
    for number, kind in enumerate(kinds):
        path.write_bytes(kind(content, checkpoint, dice, target))
        name = COMMANDS[number % len(COMMANDS)]
        capsys.readouterr()
        try:
            code = outcome(command(name, run, path, folder))
        except Exception as error:  # what must not happen: all of them are shown at the end
            faults.append(f"{number} {kind.__name__} {name}: {type(error).__name__}: {str(error)[:300]}")
            continue
        messages = capsys.readouterr().err.count("gau-alpha: error: ")
        if code != 2 or messages != 1:
            faults.append(f"{number} {kind.__name__} {name}: code {code}, {messages} messages")
    assert not faults, "\n".join(faults)
    assert listing(outside, corpus, run.config.parent) == before
    assert set(os.listdir(tmp_path)) == {"folder", "outside"}

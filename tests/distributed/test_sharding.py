"""Checkpoints of other layouts: in pieces, and of compiled modules."""

import shlex
import subprocess
import sys

import pytest
import torch
import torch.distributed.checkpoint as dcp

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM, GAUAlphaModule
from gau_alpha.checkpoints import read_checkpoint
from gau_alpha.scaling import ScalableSoftmax
from gau_alpha.training.fsdp import shard


@pytest.fixture
def module():
    return GAUAlphaModule(GAUAlphaConfig(20, 16, 24, 8, 2), train_length=12)


@pytest.mark.slow
def test_the_command_that_is_named_puts_pieces_together(module, tmp_path):
    folder = tmp_path / "last.ckpt"
    dcp.save({"state_dict": module.state_dict()}, checkpoint_id=folder, no_dist=True)
    torch.save({"hyper_parameters": dict(module.hparams)}, folder / "meta.pt")
    with pytest.raises(ValueError, match="sharded checkpoint") as refused:
        read_checkpoint(folder)
    command = shlex.split(str(refused.value).splitlines()[-1])
    assert command[0] == "python"
    done = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    weights = GAUAlphaModule.load_from_checkpoint(command[-1]).state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in module.state_dict().items())


def test_a_method_that_has_learned_single_numbers_is_not_sharded():
    model = GAUAlphaForMaskedLM(
        GAUAlphaConfig(20, 16, 24, 8, 2), AttentionMethod(scaling=ScalableSoftmax(train_length=12))
    )
    with pytest.raises(ValueError, match=r"single number .*scaling\.s.*--trainer ddp\.yaml"):
        shard(model, mesh=object())
    shard(model, mesh=None)


def test_a_compiled_models_checkpoint_is_read(module, tmp_path):
    expected = module.state_dict()
    module.model = torch.compile(module.model)
    names = module.state_dict()
    assert any("_orig_mod." in name for name in names)
    torch.save({"state_dict": names, "hyper_parameters": dict(module.hparams)}, tmp_path / "compiled.ckpt")
    weights = GAUAlphaModule.load_from_checkpoint(tmp_path / "compiled.ckpt").state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())

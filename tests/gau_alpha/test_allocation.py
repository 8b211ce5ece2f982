"""Freed memory stays in the process while a CPU trains, and only then."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from lightning.pytorch import Trainer

import gau_alpha.module
from gau_alpha import GAUAlphaConfig, GAUAlphaModule, allocation

PIECES = """
import resource, torch
from gau_alpha.allocation import keep_freed_memory, return_freed_memory

MIB = 2**20

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def work():  # takes 16 pieces of 24 MiB, writes to them and frees them, as a step does
    before = faults()
    for _ in range(2):
        held = [torch.ones(24 * MIB // 4) for _ in range(16)]
        del held
    return faults() - before

"""
glibc_only = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries are left as they are")


def tells_glibc(name):
    return name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"


def python(code):
    untold = {name: value for name, value in os.environ.items() if not tells_glibc(name)}
    command = [sys.executable, "-c", PIECES + code]
    return subprocess.run(command, env=untold, capture_output=True, text=True, check=True, timeout=60).stdout.split()


@glibc_only
def test_kept_memory_needs_no_new_pages_and_goes_back():
    code = "work(); usual = work(); keep_freed_memory(); work(); kept = work(); held = resident(); "
    code += "return_freed_memory(); left = resident(); print(usual, kept, held // MIB, left // MIB, work())"
    usual, kept, held, left, again = map(int, python(code))
    assert kept < usual / 10
    assert held - left > 300, "MiB"
    assert again > usual / 2


@glibc_only
def test_large_pieces_beside_small_ones_that_stay_do_not_add_up():
    code = """
keep_freed_memory()
small = []
for _ in range(60):
    large = torch.ones(40 * MIB // 4)
    small.append(torch.ones(3000))
    del large
print(resident() // MIB - start)
"""
    (grown,) = python("start = resident() // MIB" + code)
    assert int(grown) < 200, "MiB; 2,400 if nothing went back"


@glibc_only
@pytest.mark.parametrize("told", [("MALLOC_ARENA_MAX", "4"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=4")], ids=str)
def test_whoever_told_glibc_what_to_do_is_obeyed(monkeypatch, told):
    for name in filter(tells_glibc, list(os.environ)):
        monkeypatch.delenv(name)
    done = []
    monkeypatch.setattr(allocation, "_set", lambda *option: done.append(option))
    allocation.keep_freed_memory()
    assert len(done) == 2
    monkeypatch.setenv(*told)
    allocation.keep_freed_memory()
    allocation.return_freed_memory()
    assert len(done) == 2


@glibc_only
def test_an_evaluation_is_not_told_what_training_keeps():
    code = """
keep_freed_memory()
held = [torch.ones(24 * MIB // 4) for _ in range(16)]
del held
from gau_alpha.extrapolation.memory import PeakMemory
before = resident()
peak = PeakMemory(torch.device("cpu"))
peak.start()
print(before // MIB, peak.read() // MIB)
"""
    before, peak = map(int, python(code))
    assert before - peak > 300, "MiB"


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, number):
        ids = torch.randint(2, 20, (8,), generator=torch.Generator().manual_seed(number))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def test_training_keeps_memory_and_evaluation_does_not(monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(gau_alpha.module, "keep_freed_memory", lambda: done.append("keep"))
    monkeypatch.setattr(gau_alpha.module, "return_freed_memory", lambda: done.append("return"))
    sizes = {"hidden_size": 8, "intermediate_size": 16, "attention_key_size": 8, "num_hidden_layers": 1}
    module = GAUAlphaModule(GAUAlphaConfig(20, **sizes), train_length=8)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, enable_model_summary=False, **quiet)
    loader = torch.utils.data.DataLoader(Rows(), batch_size=2)
    trainer.test(module, loader, verbose=False)
    assert done == []
    trainer.fit(module, loader)
    assert done == ["keep", "return"]

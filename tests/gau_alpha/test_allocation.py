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
from gau_alpha.allocation import freed_memory_kept

PIECES = """
import resource, torch
from gau_alpha.allocation import keep_freed_memory, return_freed_memory

MIB = 2**20

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def work(size=24):  # takes 16 pieces of so many MiB, writes to them and frees them, as a step does
    before = faults()
    for _ in range(2):
        held = [torch.ones(size * MIB // 4) for _ in range(16)]
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
@pytest.mark.parametrize("size", [24, 40], ids="{} MiB".format)  # glibc takes those beyond 32 one by one
def test_kept_memory_needs_no_new_pages_and_goes_back(size):
    code = f"""
work({size}); usual = work({size})
keep_freed_memory()
work({size}); kept = work({size}); held = resident()
return_freed_memory()
left = resident()
print(usual, kept, held // MIB, left // MIB, work({size}))
"""
    usual, kept, held, left, again = map(int, python(code))
    assert kept < usual / 3  # room between small pieces may be lost for large ones
    assert held - left > 300, "MiB"
    assert again > usual / 2


@glibc_only
def test_room_is_addresses_until_it_is_used():
    code = "before = resident(); keep_freed_memory(); print(before // MIB, resident() // MIB)"
    before, after = map(int, python(code))
    assert after - before < 50


@glibc_only
def test_large_pieces_beside_small_ones_that_stay_add_up_to_the_room_at_most():
    code = """
start = resident()
keep_freed_memory(512 * MIB)
small = []
for _ in range(60):
    large = torch.ones(40 * MIB // 4)
    small.append(torch.ones(3000))
    del large
print((resident() - start) // MIB)
"""
    (grown,) = python(code)
    assert int(grown) < 700, "MiB; 2,400 if nothing went back"


@glibc_only
@pytest.mark.parametrize("told", [("MALLOC_ARENA_MAX", "4"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=4")], ids=str)
def test_whoever_told_glibc_what_to_do_is_obeyed(monkeypatch, told):
    for name in filter(tells_glibc, list(os.environ)):
        monkeypatch.delenv(name)
    done = []
    monkeypatch.setattr(allocation, "_set", lambda *option: done.append(option) or True)
    monkeypatch.setattr(allocation, "_hold", done.append)
    monkeypatch.setattr(allocation, "_room", None)
    allocation.keep_freed_memory()
    assert len(done) == 3
    monkeypatch.setenv(*told)
    allocation.keep_freed_memory()
    allocation.return_freed_memory()
    assert len(done) == 3


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
read = peak.read()
work(40)  # within room that is there again
print(before // MIB, read // MIB, work(40))
"""
    before, peak, faults = map(int, python(code))
    assert before - peak > 300, "MiB"
    assert faults < 2 * 16 * 40 * 2**20 // 4096 / 3, "pages; all of them without room"


@glibc_only
def test_a_block_ends_what_it_began_and_nothing_else(monkeypatch):
    for name in filter(tells_glibc, list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setattr(allocation, "_set", lambda *option: True)
    monkeypatch.setattr(allocation, "_room", None)
    cpu = torch.device("cpu")
    with freed_memory_kept(cpu, 2**26):
        assert allocation._room == 2**26
    assert allocation._room is None
    with pytest.raises(MemoryError), freed_memory_kept(cpu, 2**26):
        raise MemoryError
    assert allocation._room is None
    with freed_memory_kept(torch.device("cuda"), 2**26):
        assert allocation._room is None
    allocation.keep_freed_memory(2**27)  # training
    with freed_memory_kept(cpu, 2**26):  # its evaluation has as much as any other
        assert allocation._room == 2**26
    assert allocation._room == 2**27
    with freed_memory_kept(cpu, 2**28):
        assert allocation._room == 2**27


@glibc_only
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_where_a_process_is_limited_there_is_place_for_other_things(limit):
    code = f"""
import mmap, threading
resource.setrlimit(resource.{limit}, (4000 * MIB, 4000 * MIB))
keep_freed_memory()
region = mmap.mmap(-1, 1000 * MIB)
threads = [threading.Thread(target=torch.ones, args=(3000,)) for _ in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
shared = torch.ones(100 * MIB // 4).share_memory_()
from gau_alpha import allocation
print(allocation._room // MIB)
"""
    assert python(code) == ["500"]


@glibc_only
def test_room_is_a_share_of_what_the_container_has(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(allocation, "_CONTAINER_LIMITS", (tmp_path / "none", limit))
    limit.write_text("max\n")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    free = min(allocation._bounds())
    limit.write_text(f"{2**30}\n")
    assert min(allocation._bounds()) == 2**28 < free
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert min(allocation._bounds()) == 2**27


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

"""``--data FILE`` is the data, and nothing that was there before."""

from pathlib import Path

import pytest
import yaml

from gau_alpha.cli import main


def printed(capsys, *args):
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*args, "--print_config"])
    assert ended.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]


@pytest.fixture
def configs(corpus):
    """A run's config, and another data section of the same class that says less."""
    data = {
        "class_path": "datamodules.TextDataModule",
        "init_args": {
            "source": {"class_path": "datamodules.TextFiles", "init_args": {"paths": [str(corpus)]}},
            "tokenizer": "datamodules.ByteTokenizer",
            "train_length": 16,
            "masking": "datamodules.WholeWordMasking",
        },
    }
    Path("run.yaml").write_text(yaml.safe_dump({"data": data}))
    del data["init_args"]["masking"]
    Path("whole.yaml").write_text(yaml.safe_dump(data))
    Path("part.yaml").write_text("init_args: {train_length: 32}\n")


@pytest.mark.slow
def test_a_file_that_names_the_class_replaces_the_section(configs, capsys):
    found = printed(capsys, "fit", "--config", "run.yaml", "--data", "whole.yaml")
    assert found["masking"]["class_path"].endswith("TokenMasking"), "the default, as the file says nothing"
    found = printed(capsys, "fit", "--config", "run.yaml", "--data=whole.yaml", "--data.train_length", "8")
    assert found["masking"]["class_path"].endswith("TokenMasking")
    assert found["train_length"] == 8


@pytest.mark.slow
def test_a_file_of_some_settings_changes_these(configs, capsys):
    found = printed(capsys, "fit", "--config", "run.yaml", "--data", "part.yaml")
    assert found["masking"]["class_path"].endswith("WholeWordMasking")
    assert found["train_length"] == 32


def test_what_a_checkpoint_remembers_is_replaced_too(run, configs, capsys):
    kept = ["validate", "--ckpt_path", str(run.checkpoint)]
    assert printed(capsys, *kept)["batch_size"] == 4
    assert printed(capsys, *kept, "--data", "whole.yaml")["batch_size"] == 64

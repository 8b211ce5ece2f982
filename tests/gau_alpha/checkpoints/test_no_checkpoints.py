"""What stands in a checkpoint's place is called by its name, and the way out is told."""

import pytest

from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.checkpoints import read_checkpoint


def test_a_file_of_settings(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text("class_path: datamodules.TextDataModule\n")
    with pytest.raises(ValueError, match="is a file of text, no checkpoint, which `fit` writes"):
        read_checkpoint(path)


def test_a_hugging_face_folder(tmp_path):
    GAUAlphaForMaskedLM(GAUAlphaConfig(20, 16, 32, 8, 1)).save_pretrained(tmp_path / "folder")
    with pytest.raises(
        ValueError, match="is a Hugging Face folder, no checkpoint: make one of it with `gau-alpha convert"
    ):
        read_checkpoint(tmp_path / "folder")

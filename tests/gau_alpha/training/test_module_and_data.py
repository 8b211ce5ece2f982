"""A module and a data module that were not made for each other, put together in Python."""

import pytest
from lightning.pytorch import Trainer

from datamodules import ByteTokenizer, Synthetic, TextDataModule
from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaModule


def config(vocab_size):
    return GAUAlphaConfig(vocab_size, 16, 32, 8, 1)


@pytest.fixture
def data(tmp_path):
    return TextDataModule(
        Synthetic(num_documents=20), ByteTokenizer(), train_length=32, cache_dir=str(tmp_path / "cache"), batch_size=4
    )


@pytest.fixture
def trainer(tmp_path):
    return Trainer(
        accelerator="cpu",
        max_steps=1,
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.mark.parametrize("verb", [pytest.param("fit", marks=pytest.mark.slow), "validate", "test"])
def test_a_vocabulary_that_the_model_has_no_embeddings_for(data, trainer, verb):
    module = GAUAlphaModule(config(100), 32)
    with pytest.raises(ValueError, match=r"vocabulary has \d+ tokens, but the model's config has vocab_size 100: give"):
        getattr(trainer, verb)(module, data)


@pytest.mark.slow
def test_rows_of_another_length_than_the_methods_know(data, trainer):
    module = GAUAlphaModule(config(data.vocabulary.size), 64)
    with pytest.raises(ValueError, match="data has train_length 32, but the module was built for 64, which methods"):
        trainer.fit(module, data)


@pytest.mark.slow
@pytest.mark.parametrize("padding", [0, 6])
def test_what_fits_trains(data, trainer, padding):
    """A vocabulary that is rounded up is larger than the data's, and meant to be."""
    trainer.fit(GAUAlphaModule(config(data.vocabulary.size + padding), 32), data)
    assert trainer.global_step == 1


def test_a_method_in_the_place_of_train_length():
    with pytest.raises(ValueError, match="train_length must be a whole number, got AttentionMethod"):
        GAUAlphaModule(config(300), AttentionMethod())

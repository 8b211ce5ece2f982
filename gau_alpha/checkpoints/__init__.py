"""Models in files: Hugging Face folders and Lightning checkpoints. Everything is read as data; nothing is executed.

``fields.py`` knows ``config.json``, ``tensors.py`` the files of weights, ``folders.py`` puts both together,
``training.py`` reads Lightning checkpoints, ``card.py`` writes model cards.
"""

from gau_alpha.checkpoints.card import model_card
from gau_alpha.checkpoints.fields import METHOD_KEY
from gau_alpha.checkpoints.folders import Stored, initialise, load_folder, read_folder, save_folder, write_folder
from gau_alpha.checkpoints.tensors import load_weights
from gau_alpha.checkpoints.training import MODEL_PREFIX, model_of, read_checkpoint

__all__ = [
    "METHOD_KEY",
    "MODEL_PREFIX",
    "Stored",
    "initialise",
    "load_folder",
    "load_weights",
    "model_card",
    "model_of",
    "read_checkpoint",
    "read_folder",
    "save_folder",
    "write_folder",
]

"""Corpora, tokenizers, rows and masks.

To add a source: subclass ``datamodules.sources.TextSource``; to add a tokenizer: subclass
``datamodules.tokenizers.Tokenizer``. Name the class by ``class_path`` in a YAML; no registration is needed.
"""

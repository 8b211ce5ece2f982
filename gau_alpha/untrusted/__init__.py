"""Input from strangers: files that are read as data, whatever they say.

``reading.py`` parses YAML and JSON within limits, ``registry.py`` builds what a file describes from tables of classes,
``escaping.py`` makes text safe to show. Nothing here imports anything of ours.
"""

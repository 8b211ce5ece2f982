"""The shipped YAML files; see README.md in this folder."""

"""GAU-α pretrained on short sequences, and how far past that length it still works."""

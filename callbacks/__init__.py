"""Lightning callbacks: one small file each, named by ``class_path`` in a YAML."""

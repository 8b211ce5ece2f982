"""What lets a run be killed and go on where it stopped; ``fit`` installs all of it."""

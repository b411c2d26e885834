"""Training, checkpoints and everything that needs Lightning."""

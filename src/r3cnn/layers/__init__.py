"""Layers that one paper or another adds to a network; one file each."""

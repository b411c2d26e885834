"""Launchers of ``r3cnn train -m``: every job of a sweep is a process group of its own."""

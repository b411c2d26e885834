"""COCO evaluation: exact on any number of ranks, compact in memory, and after every loop."""

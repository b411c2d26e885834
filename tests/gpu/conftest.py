"""Tests that need a GPU: `make test-gpu`. Without one they are not collected, as there is nothing they could tell."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
collect_ignore_glob = [] if torch.cuda.is_available() else ["test_*.py"]

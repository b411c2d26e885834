"""Pure functions on tensors; no state, no module."""

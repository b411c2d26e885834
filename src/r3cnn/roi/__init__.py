"""RoI heads: extractors, box heads, mask heads and the loop that runs them."""

"""How long our networks take beside others that do the same work; on drawn images, with random weights."""

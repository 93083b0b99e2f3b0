"""Pretrained weights in: read, convert, cache; and the official Flax layout."""

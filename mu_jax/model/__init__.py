"""The network: Gemma 1, 2 and 3 as one scanned Penzai block with taps."""

"""GGUF files (llama.cpp's format), read.

file     one as a source                 spec, layers, keys   its metadata -> a spec
head     checked before it is believed   tokenizer            its vocabulary
parts    a split one, as one
"""

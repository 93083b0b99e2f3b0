"""GGUF files (llama.cpp's format), read: file as a source, spec, tokenizer."""

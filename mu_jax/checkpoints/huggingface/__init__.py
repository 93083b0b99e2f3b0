"""Hugging Face directories, read and written.

names      our parameters and theirs        config     a spec -> config.json
files      what lies in a directory         spec, rope   config.json -> a spec
folder     a directory as a source          directory  a model -> a directory
recast     a directory in another format of numbers
"""

"""Weights in and out.

source      a checkpoint of any format, read part by part, straight into its shards
huggingface, gguf, official   the formats           hub, cache   where they lie
matrix, fields, safetensors_file   what formats have in common
damage, pointer    files that are cut, or not there: one line
edits, snapshots   an edit of a run, and one that is still running (orbax)
delta, delta_file  an edit that travels             export_dir   a directory for others
rounding    a model in a narrower format, and what that leaves of an edit
"""

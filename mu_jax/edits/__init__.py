"""Editing: gradient descent on the selected tensors, and on nothing else."""

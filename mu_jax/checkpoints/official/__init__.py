"""Official Gemma checkpoints: layout of the parameters, directory (orbax) on disk."""

"""Facts, the prompts that ask for them, and their tokens. Knows no model."""

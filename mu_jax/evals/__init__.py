"""What a model knows, before and after an edit."""

"""Where is a fact looked up? Each localizer turns prompts into `Scores`."""

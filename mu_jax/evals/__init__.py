"""What a model knows, before and after an edit."""

EVALS = ("recall", "text", "probe", "lens", "depth")
"""What `mu evaluate` measures, as rows name it."""

ANALYSES = ("mask", "harness")
"""What other commands measure: no attack may have such a name either."""

"""Rows to tables, plots and one self-contained page."""

from mu_jax.report.page import show, write

__all__ = ["show", "write"]

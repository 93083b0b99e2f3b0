"""Tables of estimates on a terminal."""

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from mu_jax.console import Console
from mu_jax.report.grid import Grid


def show(grid: Grid, console: Console) -> None:
    """Prints a table, in as many pieces as the terminal's width needs."""
    lines = grid.lines()
    blocks = list(grid.blocks(console.rich.width))
    for number, block in enumerate(blocks):
        last = number == len(blocks) - 1
        shown = Table(
            title=Text(grid.title) if number == 0 else None,
            caption=Text(grid.caption) if last else None,
            caption_justify="left",
            box=SIMPLE_HEAD,
            padding=0,
            pad_edge=False,
        )
        for i in block:
            justify = "left" if i == 0 else "right"
            shown.add_column(Text(grid.titles[i]), justify=justify)
        for row in lines:
            shown.add_row(*(Text(row[i]) for i in block))
        console.table(shown)

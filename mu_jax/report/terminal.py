"""Tables of estimates on a terminal."""

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from mu_jax.console import Console
from mu_jax.report.grid import Grid, plain


def show(grid: Grid, console: Console) -> None:
    """Prints a table, in as many pieces as the terminal's width needs."""
    lines = grid.lines()
    for number, block in enumerate(grid.blocks(console.rich.width)):
        shown = Table(
            title=Text(grid.title) if number == 0 else None,
            title_justify="left",
            box=SIMPLE_HEAD,
            padding=0,
            pad_edge=False,
        )
        for i in block:
            justify = "left" if i < grid.heads else "right"
            shown.add_column(Text(grid.titles[i]), justify=justify)
        for row in lines:
            shown.add_row(*(Text(row[i]) for i in block))
        console.show(shown)
    console.show(Text(plain(grid.caption), style="dim italic"))

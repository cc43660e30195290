"""`python -m cli`: the program where no script of it is installed."""

from cli.main import app

app(prog_name="mission-control")

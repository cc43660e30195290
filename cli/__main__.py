"""`python -m cli`: the program where no script of it is installed."""

from cli.main import app
from models.leaving import leave_after

leave_after(lambda: app(prog_name="mission-control"))

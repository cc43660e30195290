"""What the reconciler's workflow and activities say to each other."""

from models.contracts.pipeline import CloseInput, Payload


class Leftover(Payload):
    """A workbench on a host whose mission has ended."""

    host: str
    task: CloseInput


class Reconciled(Payload):
    """What one pass of the reconciler put right."""

    signals: int = 0
    closed: int = 0
    swept: int = 0

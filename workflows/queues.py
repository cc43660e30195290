"""Task queues, by what they carry. A prefix keeps installations apart that share a Temporal namespace."""

_CONTROL, _WORKBENCH = "control", "workbench"


def control_queue(prefix: str) -> str:
    """Workflows and short database activities."""
    return prefix + _CONTROL


def workbench_queue(control: str) -> str:
    """Work that any host may take: the first look at a repository, and taking a mission over."""
    return control.removesuffix(_CONTROL) + _WORKBENCH


def host_queue(prefix: str, host_id: str) -> str:
    """Work bound to one machine's worktrees."""
    return f"{prefix}host-{host_id}"


def prefix_of(control: str) -> str:
    """Find the installation's prefix in the name of its control queue."""
    return control.removesuffix(_CONTROL)

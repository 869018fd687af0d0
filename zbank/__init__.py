"""zbank: a distributed bank. Each branch is a server of its own; money between branches moves by two-phase commit.

`from zbank import Client` is the way in. It is loaded at first use, so that `import zbank.domain.money` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zbank.transport.client import Client
    from zbank.transport.views import TransferRequest, TransferResult

__version__ = "0.1.0"
__all__ = ["Client", "TransferRequest", "TransferResult", "__version__"]

_HOMES = {
    "Client": "zbank.transport.client",
    "TransferRequest": "zbank.transport.views",
    "TransferResult": "zbank.transport.views",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module at first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value

"""Logs of what serves: lines for people, or JSON for machines (`--log json`). What others wrote never begins a line."""

from __future__ import annotations

import logging
import sys
from typing import Literal

REQUEST_FIELDS = ("request_id", "transfer_id", "caller")  #: of a line that is about one request

Form = Literal["text", "json"]


class TextFormatter(logging.Formatter):
    """One line a record; control characters are shown, not obeyed."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; a traceback follows indented."""
        about = " ".join(f"{name}={value}" for name in REQUEST_FIELDS if (value := getattr(record, name, "")))
        text = f"{record.levelname}: {record.getMessage()}" + (f" [{about}]" if about else "")
        lines = [_shown(text)]
        if record.exc_info:
            lines += [f"    {_shown(line)}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(lines)


def set_up(form: Form, level: str) -> None:
    """From now on this process logs to stderr in this form."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        from pythonjsonlogger.json import JsonFormatter  # 15 ms: only who asks for it pays

        handler.setFormatter(
            JsonFormatter(
                ["asctime", "levelname", "name", "message"],
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                datefmt="%Y-%m-%dT%H:%M:%S%z",
            )
        )
    else:
        handler.setFormatter(TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.getLogger("zbank").setLevel(level.upper())
    logging.getLogger("waitress").setLevel(logging.ERROR)


def _shown(text: str) -> str:
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)

"""Cursors as callers get them: opaque text, so that nobody builds on what stands in them."""

from __future__ import annotations

import base64
import binascii

from zbank.apps.api.problems import Problem


def cursor_text(cursor: str) -> str | None:
    """The opaque form of a cursor of ours; None when there is no next page."""
    return base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=") if cursor else None


def cursor_from(text: str) -> str:
    """Our cursor back. Raises Problem `invalid_request`."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise Problem("invalid_request", "this is no cursor of a page: begin with the first page") from error

"""Every "no" of the REST bridge as RFC 9457 problem+json: one table of codes and statuses, one place that makes them.

400 says that a request is not what the schema describes, 422 that it is and the bank says no, 503 that it was not done, or
is not known to be: the same Idempotency-Key may be sent again.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from zbank.domain import refusal
from zbank.errors import InvalidInput, NoAnswer, Refused, RemoteFault, Unreachable, ZbankError

RETRY_AFTER_S = 1

MALFORMED = "malformed"
KEY_MISSING = "idempotency_key_missing"
UNAUTHORIZED = "unauthorized"
FORBIDDEN = "forbidden"
NOT_FOUND = "not_found"
TOO_MANY = "too_many_requests"
UNAVAILABLE = "unavailable"
INTERNAL = "internal_error"

#: HTTP status by code. What the bank refuses is 422 wherever it stands in a body.
STATUSES: dict[str, int] = {
    MALFORMED: 400,
    KEY_MISSING: 400,
    UNAUTHORIZED: 401,
    FORBIDDEN: 403,
    NOT_FOUND: 404,
    "transfer_not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "request_timeout": 408,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    TOO_MANY: 429,
    "header_too_large": 431,
    INTERNAL: 500,
    UNAVAILABLE: 503,
    "branch_unavailable": 503,
    "busy": 503,
    "storage_full": 503,
    "out_of_office": 503,
    **dict.fromkeys(sorted(refusal.CODES), 422),
    "idempotency_conflict": 422,
    "branch_not_found": 422,
    "invalid_amount": 422,
    "invalid_request": 422,
}


class Problem(Exception):
    """An answer that is no success. Raised anywhere in a view, told by the app's one handler."""

    def __init__(self, code: str, detail: str, *, status: int = 0, retry_after_s: int = 0, replayed: bool = False) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status = status or STATUSES[code]
        self.retry_after_s = retry_after_s or (RETRY_AFTER_S if self.status == 503 else 0)
        self.replayed = replayed  #: this "no" was told before, under the same key

    def to_json(self) -> dict[str, Any]:
        """The problem object."""
        return {
            "type": f"/docs/problems#{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }


def problem_of(error: ZbankError, *, in_url: bool = False) -> Problem:
    """What one of our own errors is over HTTP. `in_url`: the thing that is not found stands in the URL, not in a body."""
    if isinstance(error, Refused):
        return _coded(error.refusal_code, error.detail, in_url, 0)
    if isinstance(error, RemoteFault):
        return _coded(error.remote_code, error.detail, in_url, -(-error.retry_after_ms // 1000))
    if isinstance(error, InvalidInput):
        code = error.code if error.code in STATUSES and error.code != MALFORMED else "invalid_request"
        return Problem(code, error.detail)
    if isinstance(error, Unreachable | NoAnswer):
        return Problem("branch_unavailable", error.detail)
    return Problem(UNAVAILABLE, error.detail)


def _coded(code: str, detail: str, in_url: bool, retry_after_s: int) -> Problem:
    if in_url and code in ("account_not_found", "branch_not_found"):
        return Problem(code, detail, status=404)
    if code == MALFORMED:
        return Problem("invalid_request", detail)
    if code not in STATUSES:
        return Problem(UNAVAILABLE, f"{code}: {detail}", retry_after_s=retry_after_s)
    return Problem(code, detail, retry_after_s=retry_after_s)

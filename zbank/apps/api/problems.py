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

#: By code: HTTP status, and what the detail may say. What the bank refuses is 422 wherever it stands in a body.
KINDS: dict[str, tuple[int, str]] = {
    MALFORMED: (400, 'body.amount: write digits with a point, as in "50.00"'),
    KEY_MISSING: (400, "give an Idempotency-Key: a fresh text for each thing you want done, the same to ask again"),
    UNAUTHORIZED: (401, "give a token: Authorization: Bearer zbank_…"),
    FORBIDDEN: (403, "Delhi/1002 is not an account of yours"),
    NOT_FOUND: (404, "there is nothing at this address: /docs shows what there is"),
    "transfer_not_found": (404, "no branch and no coordinator knows 01a206e4-6535-7290-a6cf-c388bb3b8b1c"),
    "drills_off": (404, "this bank was not started for drills: python run_cluster.py --drills"),
    "drill_not_found": (404, "there is no drill all-goes-wrong: GET /v1/drills lists them"),
    "replica_not_found": (404, "no replica Mumbai-replica of Mumbai with that data has been heard of"),
    "not_in_doubt": (404, "no branch that answers is in doubt of coordinator-2-17"),
    "method_not_allowed": (405, "this address does not take this method: /docs shows what it takes"),
    "not_acceptable": (406, "no such form of the answer can be made"),
    "request_timeout": (408, "the request did not come whole in time"),
    "branch_up": (409, "branch Mumbai is up: stop it first, so that it cannot go on beside its successor"),
    "cannot_lead": (
        409,
        "replica Mumbai-replica has no key of branch Mumbai: copy Mumbai.secret into its keys folder",
    ),
    "drill_running": (409, "the drill all-goes-well is being played: end it first"),
    "body_too_large": (413, "a body here has at most 65536 bytes"),
    "wrong_host": (421, "this bridge is not called evil.example: ask it by a name that it was told (--trusted-host)"),
    "unsupported_media_type": (415, "send JSON, with the header Content-Type: application/json"),
    TOO_MANY: (429, "more than 1000 requests in a second: slow down"),
    "header_too_large": (431, "the headers are too large"),
    INTERNAL: (500, "the bridge erred: it is in its log; the same key may be sent again"),
    UNAVAILABLE: (503, "the coordinator does not answer, so it is not known who may do what: try again later"),
    "branch_unavailable": (
        503,
        "branch Delhi is not connected: nothing was done; send the same id again when it is back",
    ),
    "busy": (503, "too much is waiting here: send the same id again in a moment"),
    "storage_full": (503, "branch Delhi has no room on its disk: not done; send the same id again when there is room"),
    "out_of_office": (503, "the coordinator was restored from an old copy: bring the newest data back"),
    refusal.ACCOUNT_NOT_FOUND: (422, "there is no account Delhi/9999"),
    refusal.ACCOUNT_EXISTS: (422, "there is an account Delhi/2001 already"),
    refusal.ACCOUNT_FROZEN: (422, "Delhi/2001 is frozen"),
    refusal.ACCOUNT_CLOSED: (422, "Delhi/2001 is closed"),
    refusal.ACCOUNT_NOT_EMPTY: (422, "Delhi/2001 has money on it or promised: bring its balance to zero first"),
    refusal.SYSTEM_ACCOUNT: (422, "Delhi/cash is the bank's own and is never changed"),
    refusal.CURRENCY_MISMATCH: (422, "Delhi keeps accounts in INR, not in EUR"),
    refusal.INSUFFICIENT_FUNDS: (422, "Mumbai/1001 has 9930.00 INR available, 999999.00 is needed"),
    refusal.LIMIT_EXCEEDED: (422, "Delhi/2001 uses or holds more of its overdraft than the new limit allows"),
    refusal.CANCELLED: (422, "cancelled before it was executed"),
    "idempotency_conflict": (422, "this id already stands for something else: use a fresh id"),
    "branch_not_found": (422, "there is no branch Lima in this cluster: it has Delhi, Mumbai, Pune"),
    refusal.BRANCH_RETIRED: (422, "branch Pune was retired and is closed for good: use another branch"),
    refusal.BRANCH_NOT_EMPTY: (422, "branch Pune has 2 accounts that are not closed: empty and close each"),
    "invalid_amount": (422, "'50.001' is too precise: INR has 2 decimals"),
    "invalid_request": (422, "both sides of the transfer are Mumbai/1001: give two different accounts"),
}
STATUSES = {code: status for code, (status, _) in KINDS.items()}


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
        return problem_json(self.code, self.detail, self.status)


def problem_json(code: str, detail: str, status: int) -> dict[str, Any]:
    """The problem object of RFC 9457."""
    title = HTTPStatus(status).phrase
    return {"type": f"/docs/problems#{code}", "title": title, "status": status, "code": code, "detail": detail}


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
    if in_url and code in ("account_not_found", "branch_not_found", "branch_retired"):
        return Problem(code, detail, status=404)
    if code == MALFORMED:
        return Problem("invalid_request", detail)
    if code not in STATUSES:
        return Problem(UNAVAILABLE, f"{code}: {detail}", retry_after_s=retry_after_s)
    return Problem(code, detail, retry_after_s=retry_after_s)

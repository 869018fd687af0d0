"""The bank over REST, as the dashboard asks it. Whatever goes wrong comes out as one of four errors, each a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import requests

CONNECT_LIMIT_S = 2.0
READ_LIMIT_S = 8.0
PAY_LIMIT_S = 12.0  #: the bank itself says "not known yet" before that

Json = Any
Query = Mapping[str, str | int | None]


class DashboardError(Exception):
    """Something that the reader of a page has to know: what happened, and what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class BridgeDown(DashboardError):
    """Nothing came back: nobody listens there, or it is no bridge of a bank."""


class Refused(DashboardError):
    """The bridge answered, and said no."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


class SignInNeeded(Refused):
    """The bridge wants a token, or does not know this one (any more)."""


class AnswerLost(DashboardError):
    """Something was asked to be done, and it is not known whether it was."""


class Rest:
    """One bridge, asked in one name. Not for several threads at once."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy of the environment stands between this and the bank
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def get(self, *path: str, **query: str | int | None) -> Json:
        """The JSON at a path, given in parts. Raises BridgeDown, Refused, SignInNeeded."""
        response = self._send("GET", path, query=query)
        _raise_refusal(response)
        return _json_of(response)

    def text(self, *path: str, accept: str, **query: str | int | None) -> tuple[str, str]:
        """A text of another type, and the cursor of its next page ("" after the last). Raises as `get`."""
        response = self._send("GET", path, query=query, headers={"Accept": accept})
        _raise_refusal(response)
        return response.text, response.headers.get("X-Next-Cursor", "")

    def do(self, method: str, *path: str, body: Json = None, key: str = "", query: Query | None = None) -> Json:
        """Ask for something to be done, once for one key; what it came to. Raises Refused and SignInNeeded when it was not
        done, AnswerLost when that is not known."""
        headers = {"Idempotency-Key": key} if key else {}
        try:
            response = self._send(method, path, query=query, body=body, headers=headers, limit_s=PAY_LIMIT_S)
        except BridgeDown as error:
            raise AnswerLost(error.text) from error
        if response.status_code >= 500:
            raise AnswerLost(_refusal_of(response).text)
        _raise_refusal(response)
        return _json_of(response)

    def _send(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: Query | None = None,
        body: Json = None,
        headers: dict[str, str] | None = None,
        limit_s: float = READ_LIMIT_S,
    ) -> requests.Response:
        url = self.url + "".join(f"/{quote(part, safe='')}" for part in path)
        params = {name.rstrip("_"): value for name, value in (query or {}).items() if value not in (None, "")}
        try:
            return self._session.request(
                method,
                url,
                params=params,
                json=body,
                headers=headers,
                timeout=(CONNECT_LIMIT_S, limit_s),
                allow_redirects=False,  # a token is for this address alone
            )
        except requests.Timeout as error:
            raise BridgeDown(f"The bridge at {self.url} did not answer in time.") from error
        except (requests.RequestException, ValueError) as error:
            raise BridgeDown(f"There is no bridge at {self.url}.") from error


def _raise_refusal(response: requests.Response) -> None:
    if response.status_code >= 300:
        raise _refusal_of(response)


def _refusal_of(response: requests.Response) -> DashboardError:
    """The problem object of an answer that is no success (RFC 9457)."""
    try:
        problem = response.json()
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        return _no_bridge(response)
    kind = SignInNeeded if response.status_code == 401 else Refused
    return kind(response.status_code, code, detail)


def _json_of(response: requests.Response) -> Json:
    try:
        return response.json()
    except ValueError as error:
        raise _no_bridge(response) from error


def _no_bridge(response: requests.Response) -> BridgeDown:
    return BridgeDown(f"What answers at {response.url.split('/v1')[0]} is no bridge of a bank.")

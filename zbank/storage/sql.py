"""Named statements of the journal store, and the change between table rows and the fold's types.

Column order is that of the types in `zbank.protocol.fold`, so that a row of a table is the tuple of a type.
"""

from __future__ import annotations

from typing import Any

from zbank.errors import CorruptStore
from zbank.protocol.fold import Settled
from zbank.protocol.messages import Txn

_ROW = "seq, epoch, at_us, kind, id, body, chain"
_ACCOUNT = (
    "number, owner, currency, status, overdraft_limit_minor, balance_minor, held_minor, incoming_minor, opened_at_us"
)
_SETTLED = "id, digest, caller, outcome, code, detail, txn, number, seq, source_seq, at_us"

# --- start ------------------------------------------------------------------------------------------------------------

NEW_ACTOR = "INSERT INTO actor (name, cluster, role, instance, epoch, seq, chain) VALUES (?, ?, ?, ?, 0, 0, ?)"
NEW_POSTED = "INSERT INTO posted (only_row, watermark, meta) VALUES (1, 0, x'')"
ACTORS = "SELECT name, cluster, role, instance, epoch, seq, chain FROM actor"
POSTED = "SELECT watermark, meta FROM posted"
LAST_ROW = f"SELECT {_ROW} FROM journal ORDER BY seq DESC LIMIT 1"
LAST_SEQ = "SELECT ifnull(max(seq), 0) FROM journal"
DATA_VERSION = "PRAGMA data_version"
POSITION = "SELECT epoch, seq, chain, (SELECT max(seq) FROM journal), (SELECT watermark FROM posted) FROM actor"

# --- commits ----------------------------------------------------------------------------------------------------------

FENCE = "UPDATE actor SET epoch = ?, seq = ?, chain = ? WHERE name = ? AND epoch = ? AND seq = ?"
APPEND = f"INSERT INTO journal ({_ROW}) VALUES (?, ?, ?, ?, ?, ?, ?)"
SET_ROLE = "UPDATE actor SET role = ?"
SET_POSTED = "UPDATE posted SET watermark = ?, meta = ?"
PUT_ACCOUNT = f"INSERT OR REPLACE INTO accounts ({_ACCOUNT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
ADD_ENTRY = "INSERT INTO entries (number, seq, leg, amount_minor, balance_minor, source_seq) VALUES (?, ?, ?, ?, ?, ?)"
ADD_SETTLED = f"INSERT INTO ids ({_SETTLED}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
ADD_TOMBSTONE = "INSERT OR IGNORE INTO tombstones (coordinator, epoch, n) VALUES (?, ?, ?)"
DROP_OPEN = "DELETE FROM open_txns WHERE id = ?"
PUT_OPEN = "INSERT INTO open_txns (id, seq) VALUES (?, ?)"
SET_ENDED = "UPDATE ids SET ended_seq = ? WHERE id = ?"

# --- reads ------------------------------------------------------------------------------------------------------------

ROW = f"SELECT {_ROW} FROM journal WHERE seq = ?"
ROWS_AFTER = f"SELECT {_ROW} FROM journal WHERE seq > ? ORDER BY seq LIMIT ?"
OPEN_ROWS = f"SELECT {_ROW} FROM journal WHERE seq IN (SELECT seq FROM open_txns) ORDER BY seq"
OPEN_ROW = f"SELECT {_ROW} FROM journal WHERE seq = (SELECT seq FROM open_txns WHERE id = ?)"
ACCOUNTS_OF = f"SELECT {_ACCOUNT} FROM accounts WHERE number IN carray(?)"
CLOSED_COUNT = "SELECT count(*) FROM accounts WHERE status = 'closed'"
NUMBER_AFTER = "SELECT number FROM accounts WHERE number > ? ORDER BY number LIMIT 1 OFFSET ?"
ACCOUNTS_FOUND = f"""
SELECT {_ACCOUNT} FROM accounts
WHERE number > ? AND number <= ? AND (?3 = '' OR status = ?3)
    AND (?4 = '' OR instr(casefold(owner), ?4) > 0 OR substr(casefold(number), 1, length(?4)) = ?4)
ORDER BY number LIMIT ?
"""
ACCOUNTS_AFTER = f"SELECT {_ACCOUNT} FROM accounts WHERE number > ? ORDER BY number LIMIT ?"
SETTLED_OF = f"SELECT {_SETTLED} FROM ids WHERE id IN carray(?)"
SETTLED = f"SELECT {_SETTLED} FROM ids WHERE id = ?"
ENDED_SEQ = "SELECT ended_seq FROM ids WHERE id = ?"
TOMBSTONES_OF = "SELECT n FROM tombstones WHERE coordinator = ? AND epoch = ? AND n IN carray(?)"


def _entries(comparison: str, direction: str) -> str:
    return f"""
        SELECT e.number, e.seq, e.leg, e.amount_minor, e.balance_minor, e.source_seq, j.at_us, j.id,
               s.seq, s.epoch, s.at_us, s.kind, s.id, s.body, s.chain
        FROM entries AS e
        CROSS JOIN journal AS j ON j.seq = e.seq
        CROSS JOIN journal AS s ON s.seq = e.source_seq
        WHERE e.number = ? AND (e.seq, e.leg) {comparison} (?, ?) AND e.seq >= ? AND e.seq < ?
        ORDER BY e.seq {direction}, e.leg {direction} LIMIT ?"""


ENTRIES_FORWARD = _entries(">", "ASC")
ENTRIES_BACKWARD = _entries("<", "DESC")

# The rows of a stretch of the journal that settled a transfer, or began one that is open, with the row of its content.
TRANSFERS_BACKWARD = f"""
    SELECT j.seq, j.at_us, o.id IS NOT NULL,
           {", ".join("i." + column for column in _SETTLED.split(", "))},
           {", ".join("s." + column for column in _ROW.split(", "))}
    FROM journal AS j
    LEFT JOIN ids AS i ON i.id = j.id AND i.seq = j.seq
    LEFT JOIN open_txns AS o ON o.id = j.id AND o.seq = j.seq
    JOIN journal AS s ON s.seq = ifnull(i.source_seq, o.seq)
    WHERE j.seq >= ? AND j.seq < ? AND j.kind IN ('executed', 'refused', 'prepared', 'committed', 'redelivered', 'aborted')
    ORDER BY j.seq DESC"""
AT_US = "SELECT at_us FROM journal WHERE seq = ?"

# --- audit ------------------------------------------------------------------------------------------------------------

# Two halves of 32 bits: a sum of 64-bit balances may pass 64 bits on its way to zero.
TOTALS = "SELECT currency, sum(balance_minor >> 32), sum(balance_minor & 0xffffffff) FROM accounts GROUP BY currency"
FOREIGN_GAPS = 'SELECT "table", parent, count(*) FROM pragma_foreign_key_check GROUP BY 1, 2'


def settled_columns(settled: Settled) -> tuple[Any, ...]:
    """The row of `ids`."""
    return (
        settled.id,
        settled.digest,
        settled.caller,
        settled.outcome,
        settled.code,
        settled.detail,
        None if settled.txn is None else str(settled.txn),
        settled.number,
        settled.seq,
        settled.source_seq,
        settled.at_us,
    )


def settled_from(columns: tuple[Any, ...]) -> Settled:
    """The outcome in a row of `ids`."""
    id, digest, caller, outcome, code, detail, txn, *numbers = columns
    return Settled(id, digest, caller, outcome, code, detail, None if txn is None else _txn_from(txn), *numbers)


def _txn_from(text: str) -> Txn:
    try:
        coordinator, epoch, n = text.rsplit("-", 2)
        return Txn(coordinator, int(epoch), int(n))
    except ValueError:
        raise CorruptStore(f"{text!r} in the table of ids is no txn: restore a backup") from None

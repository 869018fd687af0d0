-- The journal store of one actor: its journal, the final outcomes of ids, and the tables that posting writes.
-- Only journal, actor and ids are the truth; the rest is the fold of the journal up to posted.watermark.
-- References between tables are declared and checked by an audit; enforcing them in each commit would buy nothing.

-- One row: whose file this is, and where its journal stands. `epoch` and `seq` are the fence of every commit (PROTOCOL R5).
CREATE TABLE actor (
    name      TEXT    NOT NULL PRIMARY KEY,
    cluster   TEXT    NOT NULL,
    role      TEXT    NOT NULL CHECK (role IN ('branch', 'coordinator', 'replica')),
    instance  BLOB    NOT NULL CHECK (length(instance) = 16),  -- random, made with the file
    epoch     INTEGER NOT NULL CHECK (epoch >= 0),
    seq       INTEGER NOT NULL CHECK (seq >= 0),                -- of the last journal row
    chain     BLOB    NOT NULL CHECK (length(chain) = 32)       -- of the last journal row
) STRICT, WITHOUT ROWID;

-- One row: how far the tables below stand, and the actor's small state as of there.
CREATE TABLE posted (
    only_row  INTEGER PRIMARY KEY CHECK (only_row = 1),
    watermark INTEGER NOT NULL CHECK (watermark >= 0),
    meta      BLOB    NOT NULL
) STRICT;

-- What happened, for good. The chain value binds each row to all rows before it (PROTOCOL T5).
CREATE TABLE journal (
    seq   INTEGER PRIMARY KEY CHECK (seq >= 1),
    epoch INTEGER NOT NULL CHECK (epoch >= 0),
    at_us INTEGER NOT NULL CHECK (at_us >= 0),
    kind  TEXT    NOT NULL,
    id    BLOB,
    body  BLOB    NOT NULL,
    chain BLOB    NOT NULL CHECK (length(chain) = 32)
) STRICT;

CREATE TRIGGER journal_rows_never_change BEFORE UPDATE ON journal
BEGIN SELECT RAISE(ABORT, 'a journal row never changes'); END;

CREATE TRIGGER journal_rows_stay BEFORE DELETE ON journal
BEGIN SELECT RAISE(ABORT, 'a journal row is never deleted'); END;

-- The final outcome of each client-chosen id (PROTOCOL T6). `txn` is `coordinator-epoch-n`.
CREATE TABLE ids (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    digest     BLOB    NOT NULL,
    caller     TEXT    NOT NULL,
    outcome    TEXT    NOT NULL CHECK (outcome IN ('committed', 'aborted')),
    code       TEXT    NOT NULL,
    detail     TEXT    NOT NULL,
    txn        TEXT,
    number     INTEGER NOT NULL CHECK (number >= 0),
    seq        INTEGER NOT NULL REFERENCES journal (seq),
    source_seq INTEGER NOT NULL REFERENCES journal (seq),
    at_us      INTEGER NOT NULL,
    ended_seq  INTEGER REFERENCES journal (seq),
    CHECK ((outcome = 'committed') = (code = '')),
    CHECK (source_seq <= seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE accounts (
    number                TEXT    NOT NULL PRIMARY KEY,
    owner                 TEXT    NOT NULL,
    currency              TEXT    NOT NULL CHECK (length(currency) = 3),
    status                TEXT    NOT NULL CHECK (status IN ('open', 'frozen', 'closed')),
    overdraft_limit_minor INTEGER NOT NULL CHECK (overdraft_limit_minor >= 0),
    balance_minor         INTEGER NOT NULL,
    held_minor            INTEGER NOT NULL CHECK (held_minor >= 0),
    incoming_minor        INTEGER NOT NULL CHECK (incoming_minor >= 0),
    opened_at_us          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- History by account: an index into the journal with the running balance.
CREATE TABLE entries (
    number        TEXT    NOT NULL REFERENCES accounts (number),
    seq           INTEGER NOT NULL REFERENCES journal (seq),
    leg           INTEGER NOT NULL CHECK (leg >= 0),
    amount_minor  INTEGER NOT NULL,
    balance_minor INTEGER NOT NULL,
    source_seq    INTEGER NOT NULL REFERENCES journal (seq),
    PRIMARY KEY (number, seq, leg),
    CHECK (source_seq <= seq)
) STRICT, WITHOUT ROWID;

-- Txns that can never prepare here (again).
CREATE TABLE tombstones (
    coordinator TEXT    NOT NULL,
    epoch       INTEGER NOT NULL,
    n           INTEGER NOT NULL,
    PRIMARY KEY (coordinator, epoch, n)
) STRICT, WITHOUT ROWID;

-- Txns prepared (branch) or decided and not ended (coordinator) as of the watermark; seq is the row that began each.
CREATE TABLE open_txns (
    id  BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    seq INTEGER NOT NULL REFERENCES journal (seq)
) STRICT, WITHOUT ROWID;

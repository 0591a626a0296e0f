-- What the file is: "mmon" in ASCII. A file without it is never opened for writing.
PRAGMA application_id = 0x6d6d6f6e;

-- Numbers of which the file has one each: how far summing up, sealing and retention have come.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A service and its condition now. Written when they change, never per check.
CREATE TABLE service (
    id       INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    facts    TEXT,
    status   TEXT NOT NULL DEFAULT 'unknown',
    since    INTEGER NOT NULL DEFAULT 0,
    failure  TEXT,
    findings TEXT NOT NULL DEFAULT '[]'
) STRICT;

-- Failure codes as small numbers. The words are the contract, the numbers are this file's own.
CREATE TABLE failure_code (
    id   INTEGER PRIMARY KEY,
    word TEXT NOT NULL UNIQUE
) STRICT;

-- The head: checks in the order they were appended, those of one append packed into a row. Numbers
-- are never used twice. No index by service: it would touch a page per service and minute.
CREATE TABLE head (
    first  INTEGER PRIMARY KEY, -- number of its first check; the others follow
    checks BLOB NOT NULL
) STRICT;

-- Where a time is in the head: one row per run of consecutive checks whose times lie close
-- together.
CREATE TABLE head_mark (
    first  INTEGER PRIMARY KEY, -- number of its first check
    last   INTEGER NOT NULL,
    kept   INTEGER NOT NULL,    -- checks of the run still there
    min_at INTEGER NOT NULL,    -- UTC ms
    max_at INTEGER NOT NULL
) STRICT;
CREATE INDEX head_mark_by_time ON head_mark (min_at);

-- Each service's last check, right for checks of the head up to number meta.last_check_through.
CREATE TABLE last_check (
    service INTEGER PRIMARY KEY REFERENCES service (id),
    head    INTEGER NOT NULL, -- its number; 0 until one was written
    packed  BLOB              -- the last check that was sealed, a block of its own; NULL until then
) STRICT;

-- Checks that left the head: packed, one row for each service of a chunk. Ids rise with chunks and
-- within one with services (chunk << 24 | service), so rows are only ever appended and pages are
-- full, and a block is found without an index.
CREATE TABLE block (
    id     INTEGER PRIMARY KEY,
    checks BLOB NOT NULL
) STRICT;

-- A stretch of the head that is or is being sealed.
CREATE TABLE chunk (
    id         INTEGER PRIMARY KEY,
    head_first INTEGER NOT NULL, -- numbers of the checks of the head it was made of
    head_last  INTEGER NOT NULL,
    through    INTEGER,          -- services up to this number are sealed; NULL when all are
    min_at     INTEGER NOT NULL,
    max_at     INTEGER NOT NULL,
    pruned     INTEGER NOT NULL, -- checks before this moment are gone
    checks     INTEGER NOT NULL
) STRICT;

-- Summaries of a service's quarters of an hour and of its hours. Ids are number since 1970 << 24 |
-- service.
CREATE TABLE quarter (
    id      INTEGER PRIMARY KEY,
    summary BLOB NOT NULL
) STRICT;
CREATE TABLE hour (
    id      INTEGER PRIMARY KEY,
    summary BLOB NOT NULL
) STRICT;

-- Hours summed up before some of their checks came in; they are summed up anew.
CREATE TABLE stale_hour (
    hour    INTEGER NOT NULL,
    service INTEGER NOT NULL,
    PRIMARY KEY (hour, service)
) STRICT, WITHOUT ROWID;

CREATE TABLE status_change (
    id       INTEGER PRIMARY KEY,
    service  INTEGER NOT NULL REFERENCES service (id),
    at       INTEGER NOT NULL,
    was      TEXT NOT NULL,
    status   TEXT NOT NULL,
    since    INTEGER NOT NULL,
    failure  TEXT,
    findings TEXT NOT NULL,
    origin   TEXT -- what made the change, as JSON; NULL where a check did
) STRICT;
CREATE INDEX status_change_by_time ON status_change (at);
CREATE INDEX status_change_by_service ON status_change (service, at);

CREATE TABLE tool_list (
    id      INTEGER PRIMARY KEY,
    service INTEGER NOT NULL REFERENCES service (id),
    at      INTEGER NOT NULL,
    hash    TEXT NOT NULL,
    lists   TEXT NOT NULL
) STRICT;
CREATE INDEX tool_list_by_service ON tool_list (service);

-- Changes of lists, one row each, written with the list they lead to.
CREATE TABLE list_change (
    id      INTEGER PRIMARY KEY,
    service INTEGER NOT NULL REFERENCES service (id),
    at      INTEGER NOT NULL,
    body    TEXT NOT NULL
) STRICT;
CREATE INDEX list_change_by_time ON list_change (at);
CREATE UNIQUE INDEX list_change_of_service ON list_change (service, at);

CREATE TABLE host (
    id     INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    sample BLOB NOT NULL
) STRICT;
CREATE INDEX host_by_time ON host (at);

CREATE TABLE alert_state (
    key   TEXT PRIMARY KEY,
    alert TEXT,          -- id of its open or last alert
    phase TEXT NOT NULL,
    state TEXT NOT NULL
) STRICT;
CREATE INDEX alert_state_by_alert ON alert_state (alert);

CREATE TABLE alert (
    id          TEXT PRIMARY KEY,
    service     TEXT,
    fired_at    INTEGER NOT NULL,
    resolved_at INTEGER,
    body        TEXT NOT NULL
) STRICT;
CREATE INDEX alert_by_time ON alert (fired_at, id);
CREATE INDEX alert_by_end ON alert (resolved_at);
CREATE INDEX alert_open ON alert (fired_at, id) WHERE resolved_at IS NULL;

CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    handler      TEXT NOT NULL,
    key          TEXT NOT NULL,
    notification TEXT NOT NULL,
    queued_at    INTEGER NOT NULL,
    due_at       INTEGER NOT NULL,
    attempt      INTEGER NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('queued', 'delivered', 'dead')),
    last_error   TEXT,
    receipt      TEXT,
    settled_at   INTEGER,
    UNIQUE (handler, key)
) STRICT;
CREATE INDEX outbox_queued ON outbox (handler) WHERE state = 'queued';
CREATE INDEX outbox_settled ON outbox (settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX outbox_dead ON outbox (settled_at, id) WHERE state = 'dead';

CREATE TABLE silence (
    id      TEXT PRIMARY KEY,
    ends_at INTEGER NOT NULL,
    body    TEXT NOT NULL
) STRICT;

-- Repairs. Recorded before they are made, and again, under the same key, with their outcome.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY,
    key     TEXT NOT NULL UNIQUE,
    service TEXT NOT NULL, -- its name
    at      INTEGER NOT NULL,
    body    TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX audit_of_service ON audit (service, at);

-- The only table other processes write.
CREATE TABLE command (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    body TEXT NOT NULL
) STRICT;

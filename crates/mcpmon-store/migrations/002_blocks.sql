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
    head_first INTEGER NOT NULL, -- rows of the head it was made of
    head_last  INTEGER NOT NULL,
    through    INTEGER,          -- services up to this number are sealed; NULL when all are
    min_at     INTEGER NOT NULL,
    max_at     INTEGER NOT NULL,
    pruned     INTEGER NOT NULL, -- checks before this moment are gone
    checks     INTEGER NOT NULL
) STRICT;

-- What is left of a service's quarters of an hour and hours (number since 1970 << 24 | service).
CREATE TABLE quarter (
    id      INTEGER PRIMARY KEY,
    summary BLOB NOT NULL
) STRICT;
CREATE TABLE hour (
    id      INTEGER PRIMARY KEY,
    summary BLOB NOT NULL
) STRICT;

-- Hours summed up before something of them came in; they are summed up anew.
CREATE TABLE stale_hour (
    hour    INTEGER NOT NULL,
    service INTEGER NOT NULL,
    PRIMARY KEY (hour, service)
) STRICT, WITHOUT ROWID;

-- The last check of a service whose rows in the head are sealed.
ALTER TABLE last_check ADD COLUMN packed BLOB;

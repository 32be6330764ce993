-- The tables of PostgreSQL's step, in SQLite's types. See there for what they mean in detail.

ALTER TABLE billing_records RENAME TO billing_records_1;
DROP INDEX billing_records_billed;
DROP INDEX billing_records_unrated;
CREATE TABLE billing_records (
    -- In the order in which records were first seen.
    number        INTEGER PRIMARY KEY,
    record_id     BLOB NOT NULL UNIQUE CHECK (length(record_id) = 16),
    revision      INTEGER NOT NULL CHECK (revision >= 1),
    event_id      BLOB NOT NULL CHECK (length(event_id) = 16),
    status        INTEGER NOT NULL,
    billed_at_ms  INTEGER NOT NULL,
    -- The partition of the topic whose owner executes jobs on this record.
    partition     INTEGER NOT NULL
) STRICT;
INSERT INTO billing_records (record_id, revision, event_id, status, billed_at_ms, partition)
SELECT record_id, revision, event_id, status, billed_at_ms, partition FROM billing_records_1;
DROP TABLE billing_records_1;
-- What a job walks along.
CREATE INDEX billing_records_billed ON billing_records (billed_at_ms, record_id);
-- What waits for a tariff; usually nothing.
CREATE INDEX billing_records_unrated ON billing_records (billed_at_ms, record_id) WHERE status = 2;

-- The distinct contents of each record, and what all sightings of each together say.
ALTER TABLE billing_digests RENAME TO billing_digests_1;
CREATE TABLE billing_digests (
    number             INTEGER NOT NULL,
    event_id           BLOB NOT NULL CHECK (length(event_id) = 16),
    authenticity       INTEGER NOT NULL,
    first_received_ms  INTEGER NOT NULL,
    application        BLOB NOT NULL,
    application_at_ms  INTEGER NOT NULL,
    source             BLOB NOT NULL,
    source_offset      INTEGER NOT NULL,
    content            BLOB NOT NULL,
    PRIMARY KEY (number, event_id)
) STRICT;
INSERT INTO billing_digests
SELECT r.number, d.event_id, d.authenticity, d.first_received_ms, d.application,
       d.application_at_ms, d.source, d.source_offset, d.content
FROM billing_digests_1 AS d JOIN billing_records AS r USING (record_id)
ORDER BY r.number;
DROP TABLE billing_digests_1;

-- Append-only.
ALTER TABLE billing_ledger RENAME TO billing_ledger_1;
DROP INDEX billing_ledger_position;
DROP INDEX billing_ledger_session;
CREATE TABLE billing_ledger (
    number           INTEGER NOT NULL,
    record_id        BLOB NOT NULL,
    revision         INTEGER NOT NULL,
    kind             INTEGER NOT NULL CHECK (kind IN (1, 2)),
    event_id         BLOB NOT NULL,
    -- The partition that wrote the entry, and the entry's number among that partition's: gapless,
    -- and visible in this order.
    source           BLOB NOT NULL CHECK (length(source) = 16),
    position         INTEGER NOT NULL CHECK (position >= 1),
    written_ms       INTEGER NOT NULL,
    billed_at_ms     INTEGER NOT NULL,
    hour_ms          INTEGER NOT NULL,
    day              TEXT NOT NULL,
    month            TEXT NOT NULL,
    currency         TEXT NOT NULL,
    application_key  BLOB NOT NULL,
    application      BLOB NOT NULL,
    service          TEXT NOT NULL,
    status           INTEGER NOT NULL,
    attempts         INTEGER NOT NULL,
    answered         INTEGER NOT NULL,
    seconds          INTEGER NOT NULL,
    talk_seconds     INTEGER NOT NULL,
    billed_minutes   INTEGER NOT NULL,
    amount_micros    INTEGER NOT NULL,
    pdd_ms           INTEGER NOT NULL,
    pdd_samples      INTEGER NOT NULL,
    session_key      BLOB NOT NULL,
    -- The tollgate.v1.RatedCdr as it was published, session id included.
    message          BLOB NOT NULL,
    PRIMARY KEY (number, revision, kind)
) STRICT;
INSERT INTO billing_ledger
SELECT r.number, l.record_id, l.revision, l.kind, l.event_id, l.source, l.position, l.written_ms,
       l.billed_at_ms, l.hour_ms, l.day, l.month, l.currency, l.application_key, l.application,
       l.service, l.status, l.attempts, l.answered, l.seconds, l.talk_seconds, l.billed_minutes,
       l.amount_micros, l.pdd_ms, l.pdd_samples, l.session_key, l.message
FROM billing_ledger_1 AS l JOIN billing_records AS r USING (record_id)
ORDER BY r.number;
DROP TABLE billing_ledger_1;
CREATE UNIQUE INDEX billing_ledger_position ON billing_ledger (source, position);
-- A session is looked up in each hour of the aggregates.
CREATE INDEX billing_ledger_session ON billing_ledger (hour_ms, session_key);

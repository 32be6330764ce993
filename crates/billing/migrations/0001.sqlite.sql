-- The tables of PostgreSQL's step, in SQLite's types. See there for what they mean in detail.

-- Once: one row per record, kept as long as the ledger. Says which charge is in force.
CREATE TABLE billing_records (
    record_id     BLOB PRIMARY KEY CHECK (length(record_id) = 16),
    revision      INTEGER NOT NULL CHECK (revision >= 1),
    event_id      BLOB NOT NULL CHECK (length(event_id) = 16),
    status        INTEGER NOT NULL,
    billed_at_ms  INTEGER NOT NULL,
    -- The partition of the topic whose owner executes jobs on this record.
    partition     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- What a job walks along.
CREATE INDEX billing_records_billed ON billing_records (billed_at_ms, record_id);
-- What waits for a tariff; usually nothing.
CREATE INDEX billing_records_unrated ON billing_records (billed_at_ms, record_id) WHERE status = 2;

-- The distinct contents of each record, and what all sightings of each together say.
CREATE TABLE billing_digests (
    record_id          BLOB NOT NULL,
    event_id           BLOB NOT NULL CHECK (length(event_id) = 16),
    authenticity       INTEGER NOT NULL,
    first_received_ms  INTEGER NOT NULL,
    application        BLOB NOT NULL,
    application_at_ms  INTEGER NOT NULL,
    source             BLOB NOT NULL,
    source_offset      INTEGER NOT NULL,
    content            BLOB NOT NULL,
    PRIMARY KEY (record_id, event_id)
) STRICT;

-- Append-only.
CREATE TABLE billing_ledger (
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
    PRIMARY KEY (record_id, revision, kind)
) STRICT;
CREATE UNIQUE INDEX billing_ledger_position ON billing_ledger (source, position);
CREATE INDEX billing_ledger_session ON billing_ledger (session_key);

-- How many entries each partition wrote. One writer each.
CREATE TABLE billing_sources (
    source   BLOB PRIMARY KEY CHECK (length(source) = 16),
    entries  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The ledger summed. The source partition is part of the key, so that each row has one writer;
-- readers sum over the sources.
CREATE TABLE billing_aggregates (
    hour_ms          INTEGER NOT NULL,
    source           BLOB NOT NULL CHECK (length(source) = 16),
    currency         TEXT NOT NULL,
    application_key  BLOB NOT NULL,
    service          TEXT NOT NULL,
    status           INTEGER NOT NULL,
    application      BLOB NOT NULL,
    day              TEXT NOT NULL,
    month            TEXT NOT NULL,
    attempts         INTEGER NOT NULL,
    answered         INTEGER NOT NULL,
    seconds          INTEGER NOT NULL,
    talk_seconds     INTEGER NOT NULL,
    billed_minutes   INTEGER NOT NULL,
    amount_micros    INTEGER NOT NULL,
    pdd_ms           INTEGER NOT NULL,
    pdd_samples      INTEGER NOT NULL,
    PRIMARY KEY (hour_ms, source, currency, application_key, service, status)
) STRICT, WITHOUT ROWID;

-- Tariffs, under the hash of their content.
CREATE TABLE billing_tariffs (
    version        TEXT PRIMARY KEY CHECK (length(version) BETWEEN 1 AND 128),
    content        BLOB NOT NULL,
    registered_ms  INTEGER NOT NULL
) STRICT;

-- Which tariff applies from which instant of billing on. The latest activation that covers an
-- instant wins; rows are only added. One writer at a time, so every later batch sees it.
CREATE TABLE billing_activations (
    number        INTEGER PRIMARY KEY,
    version       TEXT NOT NULL REFERENCES billing_tariffs (version),
    from_ms       INTEGER NOT NULL,
    activated_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Work that commands ask for and the partitions' owners do.
CREATE TABLE billing_jobs (
    job         INTEGER PRIMARY KEY,
    -- 1: rate what is unrated. 2: rate everything again.
    kind        INTEGER NOT NULL,
    from_ms     INTEGER NOT NULL,
    to_ms       INTEGER NOT NULL,
    created_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE billing_job_progress (
    job           INTEGER NOT NULL REFERENCES billing_jobs (job),
    partition     INTEGER NOT NULL,
    -- The last record looked at.
    billed_at_ms  INTEGER NOT NULL,
    record_id     BLOB NOT NULL,
    examined      INTEGER NOT NULL,
    changed       INTEGER NOT NULL,
    done          INTEGER NOT NULL,
    PRIMARY KEY (job, partition)
) STRICT, WITHOUT ROWID;

-- What the stored figures were computed with and cannot be changed under them.
CREATE TABLE billing_facts (
    name   TEXT PRIMARY KEY,
    value  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

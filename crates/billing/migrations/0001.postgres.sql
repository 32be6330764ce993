-- Keys and indexes are fixed-length ids, numbers, or texts this program makes. What a sender
-- wrote is bytea: text of PostgreSQL takes no NUL, and an index row no more than 8 kB.

-- Once: one row per record, kept as long as the ledger. Says which charge is in force.
CREATE TABLE billing_records (
    record_id     bytea PRIMARY KEY CHECK (octet_length(record_id) = 16),
    revision      bigint NOT NULL CHECK (revision >= 1),
    event_id      bytea NOT NULL CHECK (octet_length(event_id) = 16),
    status        bigint NOT NULL,
    billed_at_ms  bigint NOT NULL,
    -- The partition of the topic whose owner executes jobs on this record.
    partition     bigint NOT NULL
) WITH (fillfactor = 90);
-- What a job walks along.
CREATE INDEX billing_records_billed ON billing_records (billed_at_ms, record_id);
-- What waits for a tariff; usually nothing.
CREATE INDEX billing_records_unrated ON billing_records (billed_at_ms, record_id) WHERE status = 2;

-- The distinct contents of each record, and what all sightings of each together say.
CREATE TABLE billing_digests (
    record_id          bytea NOT NULL,
    event_id           bytea NOT NULL CHECK (octet_length(event_id) = 16),
    authenticity       bigint NOT NULL,
    first_received_ms  bigint NOT NULL,
    application        bytea NOT NULL,
    application_at_ms  bigint NOT NULL,
    source             bytea NOT NULL,
    source_offset      bigint NOT NULL,
    content            bytea NOT NULL,
    PRIMARY KEY (record_id, event_id)
);

-- Append-only.
CREATE TABLE billing_ledger (
    record_id        bytea NOT NULL,
    revision         bigint NOT NULL,
    kind             bigint NOT NULL CHECK (kind IN (1, 2)),
    event_id         bytea NOT NULL,
    -- The partition that wrote the entry, and the entry's number among that partition's: gapless,
    -- and visible in this order.
    source           bytea NOT NULL CHECK (octet_length(source) = 16),
    position         bigint NOT NULL CHECK (position >= 1),
    written_ms       bigint NOT NULL,
    billed_at_ms     bigint NOT NULL,
    hour_ms          bigint NOT NULL,
    day              text NOT NULL,
    month            text NOT NULL,
    currency         text NOT NULL,
    application_key  bytea NOT NULL,
    application      bytea NOT NULL,
    service          text NOT NULL,
    status           bigint NOT NULL,
    attempts         bigint NOT NULL,
    answered         bigint NOT NULL,
    seconds          bigint NOT NULL,
    talk_seconds     bigint NOT NULL,
    billed_minutes   bigint NOT NULL,
    amount_micros    bigint NOT NULL,
    pdd_ms           bigint NOT NULL,
    pdd_samples      bigint NOT NULL,
    session_key      bytea NOT NULL,
    -- The tollgate.v1.RatedCdr as it was published, session id included.
    message          bytea NOT NULL,
    PRIMARY KEY (record_id, revision, kind)
);
CREATE UNIQUE INDEX billing_ledger_position ON billing_ledger (source, position);
CREATE INDEX billing_ledger_session ON billing_ledger (session_key);

-- How many entries each partition wrote. One writer each.
CREATE TABLE billing_sources (
    source   bytea PRIMARY KEY CHECK (octet_length(source) = 16),
    entries  bigint NOT NULL
) WITH (fillfactor = 50);

-- The ledger summed. The source partition is part of the key, so that each row has one writer;
-- readers sum over the sources.
CREATE TABLE billing_aggregates (
    hour_ms          bigint NOT NULL,
    source           bytea NOT NULL CHECK (octet_length(source) = 16),
    currency         text NOT NULL,
    application_key  bytea NOT NULL,
    service          text NOT NULL,
    status           bigint NOT NULL,
    application      bytea NOT NULL,
    day              text NOT NULL,
    month            text NOT NULL,
    attempts         bigint NOT NULL,
    answered         bigint NOT NULL,
    seconds          bigint NOT NULL,
    talk_seconds     bigint NOT NULL,
    billed_minutes   bigint NOT NULL,
    amount_micros    bigint NOT NULL,
    pdd_ms           bigint NOT NULL,
    pdd_samples      bigint NOT NULL,
    PRIMARY KEY (hour_ms, source, currency, application_key, service, status)
) WITH (fillfactor = 70);

-- Tariffs, under the hash of their content.
CREATE TABLE billing_tariffs (
    version        text PRIMARY KEY CHECK (octet_length(version) BETWEEN 1 AND 128),
    content        bytea NOT NULL,
    registered_ms  bigint NOT NULL
);

-- Which tariff applies from which instant of billing on. The latest activation that covers an
-- instant wins; rows are only added. Consumers lock the table in ROW SHARE mode while they rate,
-- an activation locks it in EXCLUSIVE mode: it waits for the batches that run, and every later
-- batch sees it.
CREATE TABLE billing_activations (
    number        bigint PRIMARY KEY,
    version       text NOT NULL REFERENCES billing_tariffs (version),
    from_ms       bigint NOT NULL,
    activated_ms  bigint NOT NULL
);

-- Work that commands ask for and the partitions' owners do.
CREATE TABLE billing_jobs (
    job         bigint PRIMARY KEY,
    -- 1: rate what is unrated. 2: rate everything again.
    kind        bigint NOT NULL,
    from_ms     bigint NOT NULL,
    to_ms       bigint NOT NULL,
    created_ms  bigint NOT NULL
);
CREATE TABLE billing_job_progress (
    job           bigint NOT NULL REFERENCES billing_jobs (job),
    partition     bigint NOT NULL,
    -- The last record looked at.
    billed_at_ms  bigint NOT NULL,
    record_id     bytea NOT NULL,
    examined      bigint NOT NULL,
    changed       bigint NOT NULL,
    done          bigint NOT NULL,
    PRIMARY KEY (job, partition)
);

-- What the stored figures were computed with and cannot be changed under them.
CREATE TABLE billing_facts (
    name   text PRIMARY KEY,
    value  text NOT NULL
);

-- Indexes grow at their ends: a key that is a hash changes pages anywhere in its tree, so each
-- record would cost more the larger the tree is. Only the record's own id is looked up by its
-- hash; what belongs to a record stands under the record's number.

-- In the order in which records were first seen, with gaps.
ALTER TABLE billing_records ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY (CACHE 50);

-- The distinct contents of each record, and what all sightings of each together say.
ALTER TABLE billing_digests RENAME TO billing_digests_1;
CREATE TABLE billing_digests (
    number             bigint NOT NULL,
    event_id           bytea NOT NULL CHECK (octet_length(event_id) = 16),
    authenticity       bigint NOT NULL,
    first_received_ms  bigint NOT NULL,
    application        bytea NOT NULL,
    application_at_ms  bigint NOT NULL,
    source             bytea NOT NULL,
    source_offset      bigint NOT NULL,
    content            bytea NOT NULL
);
INSERT INTO billing_digests
SELECT r.number, d.event_id, d.authenticity, d.first_received_ms, d.application,
       d.application_at_ms, d.source, d.source_offset, d.content
FROM billing_digests_1 AS d JOIN billing_records AS r USING (record_id)
ORDER BY r.number;
DROP TABLE billing_digests_1;
ALTER TABLE billing_digests ADD PRIMARY KEY (number, event_id);

-- Append-only.
ALTER TABLE billing_ledger RENAME TO billing_ledger_1;
CREATE TABLE billing_ledger (
    number           bigint NOT NULL,
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
    message          bytea NOT NULL
);
INSERT INTO billing_ledger
SELECT r.number, l.record_id, l.revision, l.kind, l.event_id, l.source, l.position, l.written_ms,
       l.billed_at_ms, l.hour_ms, l.day, l.month, l.currency, l.application_key, l.application,
       l.service, l.status, l.attempts, l.answered, l.seconds, l.talk_seconds, l.billed_minutes,
       l.amount_micros, l.pdd_ms, l.pdd_samples, l.session_key, l.message
FROM billing_ledger_1 AS l JOIN billing_records AS r USING (record_id)
ORDER BY r.number;
DROP TABLE billing_ledger_1;
ALTER TABLE billing_ledger ADD PRIMARY KEY (number, revision, kind);
CREATE UNIQUE INDEX billing_ledger_position ON billing_ledger (source, position);
-- A session is looked up in each hour of the aggregates.
CREATE INDEX billing_ledger_session ON billing_ledger (hour_ms, session_key);

-- The tables of PostgreSQL's step, in SQLite's types. See there for what they mean in detail.

ALTER TABLE state_leg RENAME TO state_leg_1;
DROP INDEX state_leg_number;
ALTER TABLE state_call RENAME TO state_call_1;
DROP INDEX state_call_age;
CREATE TABLE state_call (
    -- In the order in which calls were first heard of.
    call_serial    INTEGER PRIMARY KEY,
    session_key    BLOB NOT NULL UNIQUE CHECK (length(session_key) = 16),
    session_id     BLOB NOT NULL,
    events         BLOB NOT NULL,
    last_event_ms  INTEGER NOT NULL,
    touched_ms     INTEGER NOT NULL
) STRICT;
INSERT INTO state_call (session_key, session_id, events, last_event_ms, touched_ms)
SELECT session_key, session_id, events, last_event_ms, touched_ms FROM state_call_1;
CREATE INDEX state_call_age ON state_call (touched_ms);

CREATE TABLE state_leg (
    call_serial     INTEGER NOT NULL,
    leg             INTEGER NOT NULL,
    session_key     BLOB NOT NULL CHECK (length(session_key) = 16),
    number_key      BLOB NOT NULL CHECK (length(number_key) = 16),
    side            INTEGER NOT NULL,
    ended           INTEGER NOT NULL CHECK (ended IN (0, 1)),
    started_ms      INTEGER,
    alerting_ms     INTEGER,
    answered_ms     INTEGER,
    until_ms        INTEGER NOT NULL,
    state_code      INTEGER,
    release_reason  INTEGER,
    cause           INTEGER,
    sip_status      INTEGER,
    session_id      BLOB NOT NULL,
    PRIMARY KEY (call_serial, leg)
) STRICT, WITHOUT ROWID;
INSERT INTO state_leg
SELECT c.call_serial, l.leg, c.session_key, l.number_key, l.side, l.ended, l.started_ms,
       l.alerting_ms, l.answered_ms, l.until_ms, l.state_code, l.release_reason, l.cause,
       l.sip_status, c.session_id
FROM state_leg_1 AS l JOIN state_call AS c USING (session_key)
ORDER BY c.call_serial;
DROP TABLE state_leg_1;
DROP TABLE state_call_1;
CREATE INDEX state_leg_number ON state_leg (number_key, until_ms);

ALTER TABLE state_changed RENAME TO state_changed_1;
DROP INDEX state_changed_shard;
CREATE TABLE state_changed (
    ticket      INTEGER PRIMARY KEY AUTOINCREMENT,
    number_key  BLOB NOT NULL UNIQUE CHECK (length(number_key) = 16),
    shard       INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    number      BLOB NOT NULL,
    as_of_ms    INTEGER NOT NULL,
    busy        INTEGER NOT NULL CHECK (busy IN (0, 1))
) STRICT;
INSERT INTO state_changed
SELECT c.ticket, c.number_key, c.shard, c.version, n.number, n.as_of_ms,
       n.next_expiry_ms IS NOT NULL
FROM state_changed_1 AS c JOIN state_number AS n USING (number_key);
DROP TABLE state_changed_1;
CREATE INDEX state_changed_shard ON state_changed (shard, ticket);

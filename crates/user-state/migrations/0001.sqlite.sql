-- One row per call: its events, encoded.
CREATE TABLE state_call (
    session_key    BLOB NOT NULL PRIMARY KEY CHECK (length(session_key) = 16),
    session_id     BLOB NOT NULL,
    events         BLOB NOT NULL,
    last_event_ms  INTEGER NOT NULL,
    -- When something about it was heard last; calls are forgotten by this.
    touched_ms     INTEGER NOT NULL
) STRICT;
CREATE INDEX state_call_age ON state_call (touched_ms);

-- One row per call and party that has a number: the truth about who is in which call.
CREATE TABLE state_leg (
    session_key     BLOB NOT NULL REFERENCES state_call,
    leg             INTEGER NOT NULL,
    number_key      BLOB NOT NULL CHECK (length(number_key) = 16),
    side            INTEGER NOT NULL,
    started_ms      INTEGER,
    alerting_ms     INTEGER,
    answered_ms     INTEGER,
    ended           INTEGER NOT NULL CHECK (ended IN (0, 1)),
    until_ms        INTEGER NOT NULL,
    state_code      INTEGER,
    release_reason  INTEGER,
    cause           INTEGER,
    sip_status      INTEGER,
    PRIMARY KEY (session_key, leg)
) STRICT, WITHOUT ROWID;
CREATE INDEX state_leg_open ON state_leg (number_key, until_ms) WHERE ended = 0;
CREATE INDEX state_leg_number ON state_leg (number_key, until_ms, session_key, side);

-- One row per number ever seen.
CREATE TABLE state_number (
    number_key      BLOB NOT NULL PRIMARY KEY CHECK (length(number_key) = 16),
    number          BLOB NOT NULL,
    version         INTEGER NOT NULL,
    as_of_ms        INTEGER NOT NULL,
    presence        INTEGER NOT NULL,
    shard           INTEGER NOT NULL,
    next_expiry_ms  INTEGER
) STRICT;
CREATE INDEX state_number_expiry ON state_number (shard, next_expiry_ms)
    WHERE next_expiry_ms IS NOT NULL;
CREATE INDEX state_number_busy ON state_number (presence) WHERE presence > 1;

-- Numbers whose state is to be published. A ticket is drawn anew with every change, so that
-- removing the ticket that was published never removes a later change.
CREATE TABLE state_changed (
    ticket      INTEGER PRIMARY KEY AUTOINCREMENT,
    number_key  BLOB NOT NULL UNIQUE CHECK (length(number_key) = 16),
    shard       INTEGER NOT NULL,
    version     INTEGER NOT NULL
) STRICT;
CREATE INDEX state_changed_shard ON state_changed (shard, ticket);

-- How fresh it all is: one row per source partition.
CREATE TABLE state_applied (
    source      BLOB NOT NULL PRIMARY KEY CHECK (length(source) = 16),
    event_ms    INTEGER,
    record_ms   INTEGER NOT NULL,
    applied_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

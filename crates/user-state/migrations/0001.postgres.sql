-- One row per call: its events, encoded. The row's lock is the call's lock.
CREATE TABLE state_call (
    session_key    bytea PRIMARY KEY CHECK (octet_length(session_key) = 16),
    session_id     bytea NOT NULL,
    events         bytea NOT NULL,
    last_event_ms  bigint NOT NULL,
    -- When something about it was heard last; calls are forgotten by this.
    touched_ms     bigint NOT NULL
    -- Written with every event of the call; room on the page keeps most updates in place.
) WITH (fillfactor = 70);
CREATE INDEX state_call_age ON state_call (touched_ms);

-- One row per call and party that has a number: the truth about who is in which call.
CREATE TABLE state_leg (
    session_key     bytea NOT NULL REFERENCES state_call,
    leg             smallint NOT NULL,
    number_key      bytea NOT NULL CHECK (octet_length(number_key) = 16),
    side            smallint NOT NULL,
    started_ms      bigint,
    alerting_ms     bigint,
    answered_ms     bigint,
    ended           boolean NOT NULL,
    until_ms        bigint NOT NULL,
    state_code      integer,
    release_reason  integer,
    cause           integer,
    sip_status      integer,
    PRIMARY KEY (session_key, leg)
);
CREATE INDEX state_leg_open ON state_leg (number_key, until_ms) WHERE NOT ended;
CREATE INDEX state_leg_number ON state_leg (number_key, until_ms, session_key, side);

-- One row per number ever seen. The row's lock is held while its state is recomputed.
CREATE TABLE state_number (
    number_key      bytea PRIMARY KEY CHECK (octet_length(number_key) = 16),
    number          bytea NOT NULL,
    version         bigint NOT NULL,
    as_of_ms        bigint NOT NULL,
    presence        smallint NOT NULL,
    shard           integer NOT NULL,
    next_expiry_ms  bigint
) WITH (fillfactor = 80);
CREATE INDEX state_number_expiry ON state_number (shard, next_expiry_ms)
    WHERE next_expiry_ms IS NOT NULL;
CREATE INDEX state_number_busy ON state_number (presence) WHERE presence > 1;

-- Numbers whose state is to be published. A ticket is drawn anew with every change, so that
-- removing the ticket that was published never removes a later change.
CREATE SEQUENCE state_ticket CACHE 50;
CREATE TABLE state_changed (
    number_key  bytea PRIMARY KEY CHECK (octet_length(number_key) = 16),
    shard       integer NOT NULL,
    version     bigint NOT NULL,
    ticket      bigint NOT NULL UNIQUE
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
CREATE INDEX state_changed_shard ON state_changed (shard, ticket);

-- How fresh it all is: one row per source partition.
CREATE TABLE state_applied (
    source      bytea PRIMARY KEY CHECK (octet_length(source) = 16),
    event_ms    bigint,
    record_ms   bigint NOT NULL,
    applied_ms  bigint NOT NULL
) WITH (fillfactor = 50);

-- A tree of hashes is changed anywhere by each call, so it should be small, and there should be few
-- of them. Legs stand under the number of their call, at the end of their tree; hashes are of the
-- type that holds 16 bytes and nothing else.

ALTER TABLE state_call
    DROP CONSTRAINT state_call_session_key_check,
    ALTER COLUMN session_key TYPE uuid USING encode(session_key, 'hex')::uuid,
    -- In the order in which calls were first heard of, with gaps.
    ADD COLUMN call_serial bigint GENERATED ALWAYS AS IDENTITY (CACHE 50),
    DROP CONSTRAINT state_call_pkey,
    ALTER COLUMN session_key SET NOT NULL;
ALTER TABLE state_call ADD PRIMARY KEY (call_serial);
CREATE UNIQUE INDEX state_call_session ON state_call (session_key);

ALTER TABLE state_leg RENAME TO state_leg_1;
CREATE TABLE state_leg (
    call_serial     bigint NOT NULL,
    leg             smallint NOT NULL,
    session_key     uuid NOT NULL,
    number_key      uuid NOT NULL,
    side            smallint NOT NULL,
    ended           boolean NOT NULL,
    started_ms      bigint,
    alerting_ms     bigint,
    answered_ms     bigint,
    until_ms        bigint NOT NULL,
    state_code      integer,
    release_reason  integer,
    cause           integer,
    sip_status      integer,
    -- Again, so that a state is shown by its legs alone.
    session_id      bytea NOT NULL
);
INSERT INTO state_leg
SELECT c.call_serial, l.leg, c.session_key, encode(l.number_key, 'hex')::uuid, l.side, l.ended,
       l.started_ms, l.alerting_ms, l.answered_ms, l.until_ms, l.state_code, l.release_reason,
       l.cause, l.sip_status, c.session_id
FROM state_leg_1 AS l JOIN state_call AS c ON c.session_key = encode(l.session_key, 'hex')::uuid
ORDER BY c.call_serial;
DROP TABLE state_leg_1;
ALTER TABLE state_leg ADD PRIMARY KEY (call_serial, leg);
-- Legs that end at the same instant are few enough to be sorted when they are read.
CREATE INDEX state_leg_number ON state_leg (number_key, until_ms);

ALTER TABLE state_number
    DROP CONSTRAINT state_number_number_key_check,
    ALTER COLUMN number_key TYPE uuid USING encode(number_key, 'hex')::uuid;

-- All that is published of a number but its calls, so that the number need not be looked up again;
-- and whether it is in a call.
-- A change is found by the ticket that stands with its number, so it needs no tree of numbers.
ALTER TABLE state_number ADD COLUMN ticket bigint;
UPDATE state_number AS n SET ticket = c.ticket
FROM state_changed AS c WHERE n.number_key = encode(c.number_key, 'hex')::uuid;
DROP INDEX state_changed_shard;
ALTER TABLE state_changed
    DROP CONSTRAINT state_changed_pkey,
    ADD PRIMARY KEY (shard, ticket),
    DROP CONSTRAINT state_changed_number_key_check,
    ALTER COLUMN number_key TYPE uuid USING encode(number_key, 'hex')::uuid,
    ADD COLUMN number bytea,
    ADD COLUMN as_of_ms bigint,
    ADD COLUMN busy boolean;
UPDATE state_changed AS c
SET number = n.number, as_of_ms = n.as_of_ms, busy = n.next_expiry_ms IS NOT NULL
FROM state_number AS n WHERE n.number_key = c.number_key;
ALTER TABLE state_changed
    ALTER COLUMN number SET NOT NULL,
    ALTER COLUMN as_of_ms SET NOT NULL,
    ALTER COLUMN busy SET NOT NULL;

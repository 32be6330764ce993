-- What the store writes and another index or the store itself already holds up.

-- Legs are written only while their call is locked, and removed before it. The check cost a look-up
-- and a row lock for every leg.
ALTER TABLE state_leg DROP CONSTRAINT state_leg_session_key_fkey;

-- Legs that are on are those of state_leg_number with the latest ends.
DROP INDEX state_leg_open;

-- Tickets come from a sequence, and are removed by shard and ticket.
ALTER TABLE state_changed DROP CONSTRAINT state_changed_ticket_key;

-- Legs that are on are those of state_leg_number with the latest ends.
DROP INDEX state_leg_open;

-- Numbers that are not idle are those that change by themselves: state_number_expiry has them.
DROP INDEX state_number_busy;

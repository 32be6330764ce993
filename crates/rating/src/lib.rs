//! Tariffs and rated legs: exact money, no clock, no IO.

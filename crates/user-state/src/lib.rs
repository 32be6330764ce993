//! Consumes call events and CDRs, knows what every number is doing now.

//! The Kafka implementation against real brokers.

mod admin;
mod conformance;
mod consuming;
mod faults;
mod implied;
mod measuring;
mod membership;
mod producing;
mod reading;
mod relaying;
mod security;
mod stranded;
mod support;
mod wire;

//! Real Kafka and real PostgreSQL for tests, and nothing left behind.

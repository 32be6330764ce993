//! The stream traits over Kafka; the only crate that names rdkafka.

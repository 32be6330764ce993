//! The public contract: generated protobuf messages, ids, headers and the topic catalogue.

//! Messages as JSON, by protobuf's own mapping.
//!
//! Field names are those of the `.proto` files, enums are names, 64-bit integers and bytes
//! (base64) are strings, Timestamps are RFC 3339; fields without a value are left out, and so are
//! fields this version does not know.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use crate::FILE_DESCRIPTOR_SET;

/// A value could not be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The schema has no message of this name.
    #[error("unknown message {0}; use a full name such as tollgate.v1.CallEvent")]
    UnknownMessage(String),
    /// The bytes are not such a message.
    #[error("bytes are not a {message} ({reason}); check the topic and its ce_type")]
    NotThisMessage {
        /// Full name of the message asked for.
        message: String,
        /// What the decoder says; names fields and wire types, never values.
        reason: String,
    },
    /// A content that JSON has no form for, such as a Timestamp out of range.
    #[error("{message} has no JSON form ({reason})")]
    NoJsonForm {
        /// Full name of the message.
        message: String,
        /// What the serializer says.
        reason: String,
    },
}

#[expect(
    clippy::expect_used,
    reason = "the bytes were made by this crate's build, and a test decodes them"
)]
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("descriptor set made by the build")
});

/// The descriptors of package `tollgate.v1`.
pub fn descriptors() -> &'static DescriptorPool {
    &POOL
}

/// Decodes a message of the schema and shows it as JSON. `message_full_name` is, for example,
/// `tollgate.v1.CallEvent`: a topic's `message`, a record's `ce_type`.
pub fn to_json(message_full_name: &str, bytes: &[u8]) -> Result<serde_json::Value, JsonError> {
    let descriptor = POOL
        .get_message_by_name(message_full_name)
        .ok_or_else(|| JsonError::UnknownMessage(message_full_name.to_owned()))?;
    let message =
        DynamicMessage::decode(descriptor, bytes).map_err(|error| JsonError::NotThisMessage {
            message: message_full_name.to_owned(),
            reason: error.to_string(),
        })?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| {
        JsonError::NoJsonForm { message: message_full_name.to_owned(), reason: error.to_string() }
    })
}

/// Shows a message of the schema as JSON.
pub fn message_to_json<M: prost::Message + prost::Name>(
    message: &M,
) -> Result<serde_json::Value, JsonError> {
    to_json(&M::full_name(), &message.encode_to_vec())
}

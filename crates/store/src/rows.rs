//! Rows of the own tables, read alike from both databases.

use bytes::Bytes;
use tollgate_stream::{Fence, Mark, Outgoing, Pending, StoreError};

use crate::error::classify_own;
use crate::headers;
use crate::sql::Row;

pub(crate) fn read_fence(row: &Row) -> Result<Fence, StoreError> {
    let mark = match row.get("mark_offset")? {
        None => None,
        Some(offset) => Some(Mark {
            offset,
            timestamp_ms: row.get("mark_timestamp")?,
            event_id: String::from_utf8_lossy(row.get("mark_event_id")?).into_owned(),
        }),
    };
    Ok(Fence { epoch: row.get("epoch")?, next_offset: row.get("next_offset")?, mark })
}

pub(crate) fn read_pending(row: &Row) -> Result<Pending, StoreError> {
    let headers = headers::decode(row.get("headers")?)
        .ok_or_else(|| classify_own(sqlx::Error::ColumnNotFound("headers".to_owned())))?;
    Ok(Pending {
        position: row.get("position")?,
        record: Outgoing {
            topic: tollgate_stream::name(row.get("topic")?),
            key: row.get::<Vec<u8>>("key")?.into(),
            value: row.get::<Option<Vec<u8>>>("value")?.map(Bytes::from),
            headers,
        },
    })
}

//! What a partition publishes beside its outbox: the states of its share of the numbers.

use prost::Message;
use tollgate_schema::ids::state_id;
use tollgate_schema::topics::USER_STATES;
use tollgate_stream::{Outgoing, Pending, StoreError};

use super::rows::{Changed, View, Wanted, group};
use super::statements::Statements;
use super::{Options, queries};
use crate::fold::derive;
use crate::message::user_state;

/// Numbers whose states are made at a time.
const NUMBERS_AT_A_TIME: usize = 100;
/// Bytes of states after which no more are made: what a relay publishes at once.
const ENOUGH_BYTES: usize = 4 * 1024 * 1024;

/// The states of a shard that changed, the oldest change first, as they are now.
///
/// Rows of the outbox have positions from 1 on; the ticket of a change is told from them by its
/// sign.
pub(super) async fn changed_states(
    tx: &mut dyn Statements,
    shard: i32,
    limit: usize,
    options: &Options,
) -> Result<Vec<Pending>, StoreError> {
    let mut pending = Vec::new();
    let mut bytes = 0;
    for portion in queries::changed(tx, shard, limit).await?.chunks(NUMBERS_AT_A_TIME) {
        for row in portion_states(tx, portion, options).await? {
            bytes += row.record.size();
            pending.push(row);
        }
        if bytes >= ENOUGH_BYTES {
            break;
        }
    }
    Ok(pending)
}

async fn portion_states(
    tx: &mut dyn Statements,
    changed: &[Changed],
    options: &Options,
) -> Result<Vec<Pending>, StoreError> {
    let wanted: Vec<Wanted> = changed
        .iter()
        .map(|it| Wanted { key: it.key, as_of_ms: it.as_of_ms, is_busy: it.is_busy })
        .collect();
    let mut legs = group(tx.legs_of_numbers(&wanted, View::Show).await?);
    let pending = changed.iter().map(|row| {
        let state = derive(&legs.remove(&row.key).unwrap_or_default(), row.as_of_ms);
        let message =
            user_state(&row.number, row.version, row.as_of_ms, &state, options.pseudonyms.as_ref());
        let id = state_id(&message.number, message.version).to_string();
        let (key, value) = (message.number.clone(), message.encode_to_vec());
        let record = Outgoing::event(&USER_STATES, key, id, Some(row.as_of_ms), value);
        Pending { position: -row.ticket, record }
    });
    Ok(pending.collect())
}

/// What of a list of published rows is to be removed where.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Published {
    pub outbox_up_to: Option<i64>,
    pub tickets: Vec<i64>,
}

impl Published {
    /// Tells rows of the outbox from changes.
    pub fn sort(rows: &[Pending]) -> Self {
        let mut published = Self::default();
        for row in rows {
            if row.position < 0 {
                published.tickets.push(-row.position);
            } else {
                published.outbox_up_to = published.outbox_up_to.max(Some(row.position));
            }
        }
        published
    }
}

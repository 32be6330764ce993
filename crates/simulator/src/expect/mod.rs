//! What must become of a call, stated from its script alone.
//!
//! Nothing here parses what was sent, and nothing is shared with the code under test: ids follow
//! the published recipe, fields the protocol page, charges and states their definitions.

mod charge;
mod ids;
mod messages;
mod state;

pub(crate) use charge::{Charge, charge};
pub(crate) use ids::{Id, parse_id, quarantine_id, record_ids};
pub(crate) use messages::{call_event, cdr};
pub(crate) use state::{Known, LastCall, State, side_name, state};

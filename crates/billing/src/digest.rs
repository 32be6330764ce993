//! Which content of a record is in force.
//!
//! A record may be seen many times: the same content again (a repeat), or another content under
//! the same identity (a revision). Each distinct content is a *digest*, named by its event_id.
//! In force is the digest that is greatest by (authenticity, earliest received-at of that digest,
//! event_id):
//!
//! - authenticity: verified > absent > failed, the best of the digest's sightings. A message that
//!   proves its sender beats one that proves nothing; one with a wrong proof comes last;
//! - earliest received-at: the digest whose *first* sighting is the *latest*, that is, the newest
//!   revision. A repeat of an old digest does not make it new again;
//! - event_id: a fixed order for what is left.
//!
//! Each of the three is a maximum or a minimum over the set of sightings, so that neither order
//! nor repetition can matter.

use std::cmp::Reverse;
use std::sync::Arc;

use tollgate_schema::ids::EventId;
use tollgate_schema::v1;
use tollgate_stream::Source;

use crate::item::{CdrItem, Content};

/// What was found out about a sender, in rising order of trust. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Authenticity {
    /// A proof was given and is wrong.
    Failed = 0,
    /// No proof was given, or the edge did not say.
    Absent = 1,
    /// Some known formula and secret reproduce the proof.
    Verified = 2,
}

impl Authenticity {
    /// From the wire; what this version does not know counts as absent.
    pub fn from_proto(value: i32) -> Self {
        match v1::Authenticity::try_from(value) {
            Ok(v1::Authenticity::Failed) => Self::Failed,
            Ok(
                v1::Authenticity::VerifiedP1
                | v1::Authenticity::VerifiedP2
                | v1::Authenticity::VerifiedP3
                | v1::Authenticity::VerifiedP4
                | v1::Authenticity::VerifiedP5,
            ) => Self::Verified,
            _ => Self::Absent,
        }
    }

    /// From the database; a number that was never written counts as absent.
    pub fn from_stored(value: i64) -> Self {
        match value {
            0 => Self::Failed,
            2 => Self::Verified,
            _ => Self::Absent,
        }
    }
}

/// A partition that contents are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its key, from `tollgate_store::source_id`.
    pub source: [u8; 16],
    /// Cluster of the topic.
    pub cluster_id: String,
    /// Topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: i32,
}

impl Place {
    /// The place of a source; one for all that is read there.
    pub fn of(source: &Source) -> Arc<Self> {
        Arc::new(Self {
            source: tollgate_store::source_id(source),
            cluster_id: source.cluster_id.clone(),
            topic: source.partition.topic.to_string(),
            partition: source.partition.partition,
        })
    }
}

/// Where a content was first read. Kept for tracing a charge back to its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadAt {
    /// Which partition.
    pub place: Arc<Place>,
    /// Offset there.
    pub offset: i64,
}

impl ReadAt {
    /// As a charge names it.
    pub fn position(&self) -> v1::SourcePosition {
        v1::SourcePosition {
            cluster_id: self.place.cluster_id.clone(),
            topic: self.place.topic.clone(),
            partition: self.place.partition,
            offset: self.offset,
        }
    }
}

/// One distinct content of a record, with what all its sightings together say.
#[derive(Debug, Clone, PartialEq)]
pub struct Digest {
    /// Which content.
    pub event_id: EventId,
    /// The best of its sightings.
    pub authenticity: Authenticity,
    /// The earliest of its sightings, milliseconds since 1970 UTC.
    pub first_received_ms: i64,
    /// The application that the deciding sighting was given: the most trusted, of these the
    /// earliest, of these the first by name.
    pub application: String,
    /// When the deciding sighting was received.
    pub application_at_ms: i64,
    /// Where the content was first read.
    pub read_at: ReadAt,
    /// What was said.
    pub content: Arc<Content>,
}

impl Digest {
    /// The digest that one sighting alone makes.
    pub fn of(item: &CdrItem, place: &Arc<Place>) -> Self {
        Self {
            event_id: item.event_id,
            authenticity: item.authenticity,
            first_received_ms: item.received_at_ms,
            application: item.application.clone(),
            application_at_ms: item.received_at_ms,
            read_at: ReadAt { place: Arc::clone(place), offset: item.offset },
            content: Arc::clone(&item.content),
        }
    }

    /// Takes another sighting of the same content in; returns whether anything changed.
    /// Commutative and idempotent in everything that decides.
    pub fn merge(&mut self, other: &Self) -> bool {
        debug_assert_eq!(self.event_id, other.event_id, "digests of one content");
        let mut changed = false;
        if other.decides() > self.decides() {
            self.application.clone_from(&other.application);
            self.application_at_ms = other.application_at_ms;
            changed = true;
        }
        if other.authenticity > self.authenticity {
            self.authenticity = other.authenticity;
            changed = true;
        }
        if other.first_received_ms < self.first_received_ms {
            self.first_received_ms = other.first_received_ms;
            changed = true;
        }
        changed
    }

    /// What the digests of one record are ordered by.
    pub fn order(&self) -> (Authenticity, i64, EventId) {
        (self.authenticity, self.first_received_ms, self.event_id)
    }

    fn decides(&self) -> (Authenticity, Reverse<i64>, Reverse<&str>) {
        (self.authenticity, Reverse(self.application_at_ms), Reverse(&self.application))
    }
}

/// The digest in force; `None` of none.
pub fn in_force(digests: &[Digest]) -> Option<&Digest> {
    digests.iter().max_by_key(|digest| digest.order())
}

/// Puts a sighting's digest into a record's list; returns whether anything changed.
pub fn add(digests: &mut Vec<Digest>, digest: Digest) -> bool {
    if let Some(known) = digests.iter_mut().find(|known| known.event_id == digest.event_id) {
        return known.merge(&digest);
    }
    digests.push(digest);
    true
}

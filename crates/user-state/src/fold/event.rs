//! What the fold keeps of a status notification or a CDR. Also the form in which it is stored.

/// An instant further than this after its receipt cannot be true; the receipt stands in for it.
pub const FUTURE_TOLERANCE_MS: i64 = 3_600_000;

/// What an event says. The number is its rank among events of one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Kind {
    /// An event type this version does not know: shown, and a sign of life, nothing more.
    Unknown = 0,
    /// A call reached an X number (PrivateNumber).
    Callin = 1,
    /// The platform calls a party.
    Callout = 2,
    /// The party's phone rings.
    Alerting = 3,
    /// The party answered.
    Answer = 4,
    /// Keys were pressed, or not in time.
    CollectInfo = 5,
    /// The call is over.
    Disconnect = 6,
    /// The call detail record; sent when the call is over.
    Cdr = 7,
}

impl Kind {
    /// Which events stay when a call has more than the cap: smaller first.
    pub(super) fn keep_class(self) -> u8 {
        match self {
            Self::Cdr => 0,
            Self::Disconnect => 1,
            Self::Answer => 2,
            Self::Callin => 3,
            Self::Callout => 4,
            Self::Alerting => 5,
            Self::CollectInfo => 6,
            Self::Unknown => 7,
        }
    }
}

/// How far the sender of an event is known, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Trust {
    /// Authentication headers came and did not verify.
    Failed = 0,
    /// No authentication headers came.
    Absent = 1,
    /// Verified.
    Verified = 2,
}

/// One event of a call. All instants in milliseconds since 1970.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    /// Identity of the record, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub record_id: Vec<u8>,
    /// Identity of the content, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub event_id: Vec<u8>,
    /// What it says.
    #[prost(enumeration = "Kind", tag = "3")]
    pub kind: i32,
    /// Earliest receipt of this content.
    #[prost(sint64, tag = "4")]
    pub received_ms: i64,
    /// Best authenticity this content came with.
    #[prost(enumeration = "Trust", tag = "5")]
    pub trust: i32,
    /// When it happened, as the platform says; of a CDR the end of the call.
    #[prost(sint64, optional, tag = "6")]
    pub occurred_ms: Option<i64>,
    /// The number shown to the party being called; in a callin the caller.
    #[prost(string, optional, tag = "7")]
    pub caller: Option<String>,
    /// The party being called; in a callin the X number.
    #[prost(string, optional, tag = "8")]
    pub called: Option<String>,
    /// Keys pressed.
    #[prost(string, optional, tag = "9")]
    pub digits: Option<String>,
    /// Hang-up cause of a disconnect.
    #[prost(sint32, optional, tag = "10")]
    pub state_code: Option<i32>,
    /// The platform's words for it.
    #[prost(string, optional, tag = "11")]
    pub state_description: Option<String>,
    /// Who hung up: `caller`, `callee`, `platform`, or the platform's own word.
    #[prost(string, optional, tag = "12")]
    pub hung_up_by: Option<String>,
    /// The event type as received, when it is unknown.
    #[prost(string, optional, tag = "13")]
    pub type_text: Option<String>,
    /// Echo of what the customer sent when it started the call.
    #[prost(string, optional, tag = "14")]
    pub user_data: Option<String>,
    /// What a CDR says beside its end.
    #[prost(message, optional, boxed, tag = "15")]
    pub cdr: Option<Box<Cdr>>,
}

/// The facts of a CDR.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Cdr {
    /// Party A.
    #[prost(message, optional, tag = "1")]
    pub a: Option<CdrLeg>,
    /// Party B.
    #[prost(message, optional, tag = "2")]
    pub b: Option<CdrLeg>,
    /// A called in (PrivateNumber): that leg has no answer time of its own.
    #[prost(bool, tag = "3")]
    pub inbound: bool,
    /// Some field could not be read, so an absent instant proves nothing.
    #[prost(bool, tag = "4")]
    pub incomplete: bool,
    /// ulFailReason.
    #[prost(sint32, optional, tag = "5")]
    pub release_reason: Option<i32>,
    /// SIP status of the failure.
    #[prost(sint32, optional, tag = "6")]
    pub sip_status: Option<i32>,
    /// serviceType as received.
    #[prost(string, optional, tag = "7")]
    pub service_type: Option<String>,
    /// Application key.
    #[prost(string, tag = "8")]
    pub app_key: String,
    /// The platform's id of the record.
    #[prost(string, optional, tag = "9")]
    pub icid: Option<String>,
    /// Keys of a digit dialogue.
    #[prost(string, optional, tag = "10")]
    pub ivr_path: Option<String>,
    /// Whether the call was recorded.
    #[prost(bool, optional, tag = "11")]
    pub recorded: Option<bool>,
    /// PrivateNumber: the X number that was dialled.
    #[prost(string, optional, tag = "12")]
    pub dialled: Option<String>,
}

/// One leg as a CDR tells it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CdrLeg {
    /// The party.
    #[prost(string, optional, tag = "1")]
    pub number: Option<String>,
    /// Start of calling.
    #[prost(sint64, optional, tag = "2")]
    pub started_ms: Option<i64>,
    /// Ringing.
    #[prost(sint64, optional, tag = "3")]
    pub alerting_ms: Option<i64>,
    /// Answered.
    #[prost(sint64, optional, tag = "4")]
    pub answered_ms: Option<i64>,
    /// Q.850 cause.
    #[prost(sint32, optional, tag = "5")]
    pub cause: Option<i32>,
    /// The number shown to the party.
    #[prost(string, optional, tag = "6")]
    pub number_shown: Option<String>,
}

impl Event {
    /// The instant this event counts for: what the platform says, or else the earliest receipt,
    /// which also replaces an instant more than an hour after it.
    pub fn time_ms(&self) -> i64 {
        match self.stated_ms() {
            Some(stated) if self.is_plausible(stated) => stated,
            _ => self.received_ms,
        }
    }

    /// The end that a CDR states, if it can be true.
    pub fn stated_end_ms(&self) -> Option<i64> {
        self.occurred_ms.filter(|stated| self.is_plausible(*stated))
    }

    /// Whether some field of a CDR could not be read, so that an absent instant proves nothing.
    pub(super) fn is_incomplete(&self) -> bool {
        self.cdr.as_deref().is_some_and(|cdr| cdr.incomplete)
    }

    /// Whether an instant in this event can be true.
    pub(super) fn is_plausible(&self, instant_ms: i64) -> bool {
        instant_ms <= self.received_ms.saturating_add(FUTURE_TOLERANCE_MS)
    }

    /// What the platform says; of a CDR without an end its latest instant.
    fn stated_ms(&self) -> Option<i64> {
        self.occurred_ms.or_else(|| {
            let cdr = self.cdr.as_deref()?;
            [&cdr.a, &cdr.b]
                .into_iter()
                .flatten()
                .flat_map(|leg| [leg.started_ms, leg.alerting_ms, leg.answered_ms])
                .flatten()
                .filter(|instant| self.is_plausible(*instant))
                .max()
        })
    }

    /// Orders the digests of one record; the greatest is in force.
    pub(super) fn force(&self) -> (i32, i64, &[u8]) {
        (self.trust, self.received_ms, &self.event_id)
    }

    /// Orders the events of a call.
    pub(super) fn order(&self) -> (i64, i32, &[u8]) {
        (self.time_ms(), self.kind, &self.event_id)
    }
}

//! One call: who, what, when, and how it is told.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::course::{Course, course};
use super::status::{Draws, Status, statuses};
use super::{Plan, Style, words};
use crate::{Fault, Service};

/// Most statuses that a call can have.
pub(crate) const MAX_STATUSES: usize = 14;

/// Faults are drawn apart from the calls, so that they change no call.
const FAULT_STREAM: u64 = 1 << 63;

/// How a request is brought to the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Plain,
    Chunked,
    SlowBody,
    CloseAfterSending,
    /// On a connection of the other kind than usual.
    OtherConnection,
}

/// One call. Times are seconds since 1970, as the platform's have that resolution.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    pub index: u64,
    pub tag: u32,
    /// Index into the plan's applications.
    pub application: usize,
    pub service: Service,
    pub app_key: String,
    pub session_id: String,
    /// Not every record has one.
    pub icid: Option<String>,
    pub number_a: String,
    /// The party to be called second; may never come to be called.
    pub number_b: Option<String>,
    pub user_data: Option<String>,
    pub begins_at: i64,
    pub course: Course,
    pub is_recorded: bool,
    /// Uses of text to speech, and seconds spent on it.
    pub tts: (i32, i32),
    pub style: Style,
    pub statuses: Vec<Status>,
    /// When its record is ready to be merged and sent, milliseconds since 1970.
    pub cdr_due_ms: i64,
    /// How the message is brought that its record is the first of.
    pub cdr_delivery: Delivery,
    /// The answer to the message with its record is lost.
    pub loses_answer: bool,
    pub has_malformed_neighbour: bool,
}

pub(super) fn make(plan: &Plan, index: u64) -> Call {
    let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
    rng.set_stream(index);
    let application = rng.random_range(0..plan.applications.len().max(1));
    let Some(owner) = plan.applications.get(application) else {
        unreachable!("options always name an application");
    };
    let service = owner.service;
    let course = course(service, &mut rng);

    // The call is dated to end in the second in which its end is due.
    let wall_start = plan.begins_at_ms(index);
    let due_ms = |offset: i64| wall_start + (offset as f64 * 1000.0 / plan.speed) as i64;
    let begins_at = due_ms(course.ends).div_euclid(1000) - course.ends;

    let (number_a, number_b) = numbers(plan, index, service);
    let has_talked = course.b.is_some_and(|leg| leg.answered.is_some());
    let tag = plan.tag();
    let mut call = Call {
        index,
        tag,
        application,
        service,
        app_key: owner.app_key.clone(),
        session_id: session_id(service, index, tag, begins_at, &number_a, number_b.as_deref()),
        icid: icid(index, tag, begins_at, &mut rng),
        user_data: words::user_data(index, &number_a, &mut rng),
        number_a,
        number_b,
        begins_at,
        is_recorded: rng.random_bool(0.3) && has_talked,
        tts: if service == Service::Notification {
            (rng.random_range(0..3), rng.random_range(1..12))
        } else {
            (0, 0)
        },
        style: Style {
            escaped: rng.random_bool(0.2),
            empty_for_absent: rng.random_bool(0.1),
            ..Style::default()
        },
        statuses: Vec::new(),
        cdr_due_ms: due_ms(course.ends),
        cdr_delivery: Delivery::Plain,
        loses_answer: false,
        has_malformed_neighbour: false,
        course,
    };
    let mut draws = Draws {
        bare: rng.random_bool(0.05),
        no_code: rng.random_bool(0.05),
        party: rng.random_bool(0.5),
        missing_alerting: false,
        missing_disconnect: false,
        two_disconnects: false,
        unknown_event_type: false,
        out_of_order: None,
        cdr_before_disconnect: false,
    };
    draw_faults(plan, &mut call, &mut draws, due_ms);
    call
}

fn draw_faults(plan: &Plan, call: &mut Call, draws: &mut Draws, due_ms: impl Fn(i64) -> i64) {
    let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
    rng.set_stream(call.index | FAULT_STREAM);
    // Each is drawn whether it is wanted or not: changing one probability moves no other fault.
    let mut happens = |fault: Fault| rng.random::<f64>() < plan.faults.probability(fault);
    call.loses_answer = happens(Fault::Duplicate);
    let out_of_order = happens(Fault::OutOfOrder);
    draws.cdr_before_disconnect = happens(Fault::CdrBeforeDisconnect);
    draws.missing_alerting = happens(Fault::MissingAlerting);
    draws.missing_disconnect = happens(Fault::MissingDisconnect);
    draws.two_disconnects = happens(Fault::TwoDisconnects) && !draws.missing_disconnect;
    call.has_malformed_neighbour = happens(Fault::MalformedRecord);
    call.style.numbers_as_strings = happens(Fault::NumbersAsStrings);
    call.style.double_blanks = happens(Fault::DoubleBlanks);
    call.style.unknown_fields = happens(Fault::UnknownFields);
    draws.unknown_event_type = happens(Fault::UnknownEventType);
    draws.out_of_order = Some(rng.random()).filter(|_| out_of_order);

    let mut deliveries = [Delivery::Plain; MAX_STATUSES + 1];
    for delivery in &mut deliveries {
        for (fault, kind) in [
            (Fault::MixedConnections, Delivery::OtherConnection),
            (Fault::Chunked, Delivery::Chunked),
            (Fault::SlowBody, Delivery::SlowBody),
            (Fault::CloseAfterSending, Delivery::CloseAfterSending),
        ] {
            if rng.random::<f64>() < plan.faults.probability(fault) {
                *delivery = kind;
            }
        }
    }
    call.cdr_delivery = deliveries[MAX_STATUSES];
    call.statuses = statuses(call, draws, due_ms, |index| {
        deliveries.get(index).copied().unwrap_or(Delivery::Plain)
    });
}

/// Numbers take turns, so that a phone is not called again before the pool is through.
fn numbers(plan: &Plan, index: u64, service: Service) -> (String, Option<String>) {
    let pool = u64::from(plan.numbers.max(2));
    let first = plan.seed.wrapping_mul(7919) % 100_000;
    let number = |turn: u64| words::mobile(((first + turn % pool) % 100_000) as u32);
    let b = (service == Service::Callback).then(|| number(index * 2 + 1));
    (number(index * 2), b)
}

/// Every fourth has the newer shape, with phone numbers in it (P 3).
fn session_id(
    service: Service,
    index: u64,
    tag: u32,
    begins_at: i64,
    number_a: &str,
    number_b: Option<&str>,
) -> String {
    if index % 4 == 3 {
        let other = number_b.unwrap_or(words::SHOWN_TO_A);
        return format!("{number_a}_{other}_4_{tag:08x}_{index}_669_1_0");
    }
    let prefix = if service == Service::Callback { 1201 } else { 1202 };
    format!("{prefix}_{index}_{tag}_{}@{}", words::digits_utc(begins_at), words::HOST)
}

fn icid(index: u64, tag: u32, begins_at: i64, rng: &mut impl Rng) -> Option<String> {
    match rng.random_range(0..10) {
        0 => None,
        1 | 2 => {
            let half: u64 = rng.random();
            Some(format!("{half:016x}{tag:08x}{:08x}.3663000016.{index}.14", index as u32))
        }
        _ => Some(format!("CAE-{}-{tag:010}{index:04}", words::digits_beijing(begins_at))),
    }
}

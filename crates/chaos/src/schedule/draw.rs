//! Draws a schedule.

use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{BROKERS, Damage, Database, Event, Fault, How, Node, Path, Schedule, TRAFFIC_MS};

/// Calls flow before the first fault, so that there is something to lose.
const FIRST_MS: u64 = 2_000;
/// For some requests to gather.
const PRELUDE_MS: u64 = 1_500;
const SHORTEST_MS: u64 = 300;
const LONGEST_MS: u64 = 9_000;
/// Draws that may fall on something that is in trouble already.
const DRAWS: usize = 1_000;

pub(super) fn schedule(seed: u64) -> Schedule {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut schedule = Schedule {
        seed,
        delivered: rng.random_bool(0.4),
        new_protocol: rng.random_bool(0.5),
        static_members: rng.random_bool(0.5),
        events: Vec::new(),
    };
    let wanted = rng.random_range(8..=13);
    for _ in 0..DRAWS {
        if schedule.events.len() >= wanted {
            break;
        }
        let drawn = draw(&mut rng);
        let before = prelude(&drawn);
        let fits = |new: &Event| !schedule.events.iter().any(|event| meet(event, new));
        if fits(&drawn) && before.as_ref().is_none_or(fits) {
            schedule.events.extend(before);
            schedule.events.push(drawn);
        }
    }
    schedule.events.sort_by_key(|event| event.at_ms);
    schedule
}

fn meet(one: &Event, two: &Event) -> bool {
    let apart = one.ends_ms() < two.at_ms || two.ends_ms() < one.at_ms;
    !apart && one.fault.excludes(two.fault)
}

/// What must go wrong first: requests are unpublished only while the brokers are out of reach.
fn prelude(drawn: &Event) -> Option<Event> {
    let Fault::Kill(edge, Some(Damage::FlipUnpublished)) = drawn.fault else { return None };
    Some(Event {
        at_ms: drawn.at_ms - PRELUDE_MS,
        lasts_ms: PRELUDE_MS,
        fault: Fault::Network(Path::Brokers(edge), How::Stalled),
    })
}

fn draw(rng: &mut ChaCha8Rng) -> Event {
    let fault = fault(rng);
    let longest = match fault {
        // A restart takes its time on top.
        Fault::Kill(..) | Fault::Restart(_) | Fault::KillBroker(_) | Fault::RestartBroker(_) => {
            5_000
        }
        Fault::Database(Database::EndSessions) => SHORTEST_MS,
        Fault::Database(_) => 4_000,
        _ => LONGEST_MS,
    };
    // Short troubles are the more frequent ones, and the longer ones are more revealing: both.
    let lasts_ms =
        rng.random_range(SHORTEST_MS..=longest).min(rng.random_range(1_000..=longest.max(1_000)));
    let at_ms = rng.random_range(FIRST_MS..=TRAFFIC_MS - lasts_ms);
    Event { at_ms, lasts_ms, fault }
}

fn fault(rng: &mut ChaCha8Rng) -> Fault {
    let node = any(rng, &Node::ALL);
    let edge = any(rng, &Node::EDGES);
    let broker = rng.random_range(0..BROKERS);
    match rng.random_range(0..100) {
        0..20 => Fault::Kill(node, damage(rng, node)),
        20..26 => Fault::Restart(node),
        26..38 => Fault::Freeze(node),
        38..45 => Fault::KillBroker(broker),
        45..50 => Fault::RestartBroker(broker),
        50..55 => Fault::FreezeBroker(broker),
        55..66 => Fault::Database(any(
            rng,
            &[Database::Kill, Database::Restart, Database::Pause, Database::EndSessions],
        )),
        66..90 => Fault::Network(path(rng, node, edge), how(rng)),
        90..95 => Fault::DiskFull(Node::Edge2),
        _ => Fault::Clock(node, rng.random_range(-600..=600)),
    }
}

fn damage(rng: &mut ChaCha8Rng, node: Node) -> Option<Damage> {
    (node.is_edge() && rng.random_bool(0.7)).then(|| any(rng, &Damage::ALL))
}

fn path(rng: &mut ChaCha8Rng, node: Node, edge: Node) -> Path {
    match rng.random_range(0..11) {
        0 => Path::Replication(rng.random_range(0..BROKERS)),
        1..3 => Path::Sender(edge),
        3..6 => Path::Brokers(node),
        6..8 if !node.is_edge() => Path::Database(node),
        _ => Path::Broker(node, rng.random_range(0..BROKERS)),
    }
}

fn how(rng: &mut ChaCha8Rng) -> How {
    match rng.random_range(0..4) {
        0 => How::Stalled,
        1 => How::Deaf,
        2 => How::Refused,
        _ => How::Delayed(rng.random_range(20..=800)),
    }
}

#[expect(clippy::expect_used, reason = "every list here has something in it")]
fn any<T: Copy>(rng: &mut ChaCha8Rng, from: &[T]) -> T {
    *from.choose(rng).expect("nothing to choose from")
}

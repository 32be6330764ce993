//! librdkafka's statistics as metrics.
//!
//! Each client reports for itself; there are several of a kind, a relay for each partition. Gauges
//! are therefore kept per client and summed per kind, counters go up by what each client adds.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use metrics::{counter, gauge};
use rdkafka::statistics::{Broker, Statistics, Window};

use crate::context::Role;
use crate::metrics as names;

/// Brokers and topics beyond this many share the label `other`.
const MOST_LABELS: usize = 64;

/// The latest report of each client.
#[derive(Debug, Default)]
pub struct Hub {
    clients: Mutex<BTreeMap<u64, Report>>,
}

#[derive(Debug, Clone)]
struct Report {
    role: Role,
    queue_messages: u64,
    queue_bytes: u64,
    queue_limit_bytes: u64,
    brokers: BTreeMap<String, BrokerReport>,
    topics: BTreeMap<String, TopicReport>,
}

#[derive(Debug, Clone, Copy, Default)]
struct BrokerReport {
    up: bool,
    /// Seconds; `None` when nothing was measured in the interval.
    rtt: Option<f64>,
    rtt_p99: Option<f64>,
    throttle: Option<f64>,
    counters: [u64; 4],
}

#[derive(Debug, Clone, Copy, Default)]
struct TopicReport {
    messages: u64,
    bytes: u64,
}

const COUNTERS: [tollgate_telemetry::Metric; 4] =
    [names::REQUEST_TIMEOUTS, names::TRANSMIT_ERRORS, names::REQUEST_RETRIES, names::DISCONNECTS];

impl Hub {
    /// Takes a client's statistics in and publishes what follows.
    pub fn report(&self, client: u64, role: Role, statistics: &Statistics) {
        let report = Report::new(role, statistics);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        count(role, clients.get(&client), &report);
        clients.insert(client, report);
        publish(role, &clients);
    }

    /// Forgets a client that is gone.
    pub fn forget(&self, client: u64) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(report) = clients.remove(&client) {
            publish(report.role, &clients);
        }
    }
}

impl Report {
    fn new(role: Role, statistics: &Statistics) -> Self {
        let mut brokers: BTreeMap<String, BrokerReport> = BTreeMap::new();
        for broker in statistics.brokers.values() {
            // Bootstrap and coordinator connections (below 0) are the same brokers once more.
            if broker.nodeid >= 0 {
                let label = bounded(broker.nodeid.to_string(), &brokers);
                brokers.insert(label, BrokerReport::new(broker));
            }
        }
        let mut topics: BTreeMap<String, TopicReport> = BTreeMap::new();
        if matches!(role, Role::Consumer | Role::Reader) {
            for topic in statistics.topics.values() {
                let label = bounded(topic.topic.clone(), &topics);
                let sum = topics.entry(label).or_default();
                for partition in topic.partitions.values() {
                    sum.messages += u64::try_from(partition.fetchq_cnt).unwrap_or(0);
                    sum.bytes += partition.fetchq_size;
                }
            }
        }
        let produces = matches!(role, Role::Spooled | Role::Delivered | Role::Relay);
        let of_queue = |value: u64| if produces { value } else { 0 };
        Self {
            role,
            queue_messages: of_queue(statistics.msg_cnt),
            queue_bytes: of_queue(statistics.msg_size),
            queue_limit_bytes: of_queue(statistics.msg_size_max),
            brokers,
            topics,
        }
    }
}

impl BrokerReport {
    fn new(broker: &Broker) -> Self {
        // librdkafka keeps a window's last values when nothing new came in: cnt tells.
        let seconds = |window: Option<&Window>, unit: f64, value: fn(&Window) -> i64| {
            window.filter(|window| window.cnt > 0).map(|window| value(window) as f64 / unit)
        };
        let micros = 1_000_000.0;
        let millis = 1_000.0;
        Self {
            up: broker.state == "UP",
            rtt: seconds(broker.rtt.as_ref(), micros, |window| window.avg),
            rtt_p99: seconds(broker.rtt.as_ref(), micros, |window| window.p99),
            throttle: seconds(broker.throttle.as_ref(), millis, |window| window.avg),
            counters: [
                broker.req_timeouts,
                broker.txerrs,
                broker.txretries,
                u64::try_from(broker.disconnects.unwrap_or(0)).unwrap_or(0),
            ],
        }
    }
}

fn bounded<V>(label: String, known: &BTreeMap<String, V>) -> String {
    if known.len() < MOST_LABELS || known.contains_key(&label) { label } else { "other".into() }
}

fn count(role: Role, before: Option<&Report>, now: &Report) {
    for (broker, report) in &now.brokers {
        let known = before.and_then(|before| before.brokers.get(broker)).copied();
        let known = known.unwrap_or_default();
        for ((metric, value), earlier) in COUNTERS.iter().zip(report.counters).zip(known.counters) {
            counter!(metric.name, "client" => role.label(), "broker" => broker.clone())
                .increment(value.saturating_sub(earlier));
        }
    }
}

fn publish(role: Role, clients: &BTreeMap<u64, Report>) {
    let reports: Vec<&Report> = clients.values().filter(|report| report.role == role).collect();
    let client = role.label();
    if matches!(role, Role::Spooled | Role::Delivered | Role::Relay) {
        let sum = |value: fn(&Report) -> u64| reports.iter().map(|r| value(r)).sum::<u64>() as f64;
        gauge!(names::QUEUE_MESSAGES.name, "client" => client).set(sum(|r| r.queue_messages));
        gauge!(names::QUEUE_BYTES.name, "client" => client).set(sum(|r| r.queue_bytes));
        gauge!(names::QUEUE_LIMIT_BYTES.name, "client" => client).set(sum(|r| r.queue_limit_bytes));
    }
    publish_brokers(client, &reports);
    publish_topics(client, &reports);
}

fn publish_brokers(client: &'static str, reports: &[&Report]) {
    let mut brokers: BTreeMap<&String, Vec<&BrokerReport>> = BTreeMap::new();
    for (broker, report) in reports.iter().flat_map(|report| &report.brokers) {
        brokers.entry(broker).or_default().push(report);
    }
    for (broker, reports) in brokers {
        let up = reports.iter().filter(|report| report.up).count();
        gauge!(names::BROKER_CONNECTIONS.name, "client" => client, "broker" => broker.clone())
            .set(up as f64);
        // Of several clients the slowest: that is the one somebody will ask about.
        let slowest = |value: fn(&BrokerReport) -> Option<f64>| {
            reports.iter().filter_map(|report| value(report)).reduce(f64::max)
        };
        let measured = [
            (names::BROKER_RTT, slowest(|report| report.rtt)),
            (names::BROKER_RTT_P99, slowest(|report| report.rtt_p99)),
            (names::BROKER_THROTTLE, slowest(|report| report.throttle)),
        ];
        for (metric, value) in measured {
            if let Some(value) = value {
                gauge!(metric.name, "client" => client, "broker" => broker.clone()).set(value);
            }
        }
    }
}

fn publish_topics(client: &'static str, reports: &[&Report]) {
    let mut topics: BTreeMap<&String, TopicReport> = BTreeMap::new();
    for (topic, report) in reports.iter().flat_map(|report| &report.topics) {
        let sum = topics.entry(topic).or_default();
        sum.messages += report.messages;
        sum.bytes += report.bytes;
    }
    for (topic, sum) in topics {
        gauge!(names::FETCH_QUEUE_MESSAGES.name, "client" => client, "topic" => topic.clone())
            .set(sum.messages as f64);
        gauge!(names::FETCH_QUEUE_BYTES.name, "client" => client, "topic" => topic.clone())
            .set(sum.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use metrics_exporter_prometheus::PrometheusBuilder;
    use rdkafka::statistics::{Partition, Topic};

    use super::*;

    /// What a scrape shows after `work`.
    fn scrape(work: impl FnOnce(&Hub)) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || work(&Hub::default()));
        handle.render()
    }

    fn line(text: &str, name: &str) -> Option<f64> {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|value| value.trim().parse().ok())
    }

    fn producer(messages: u64, bytes: u64, timeouts: u64) -> Statistics {
        let window = |avg, p99, cnt| Some(Window { avg, p99, cnt, ..Window::default() });
        let broker = Broker {
            nodeid: 3,
            state: "UP".into(),
            req_timeouts: timeouts,
            txerrs: 5,
            txretries: 6,
            disconnects: Some(7),
            rtt: window(2_500, 40_000, 9),
            throttle: window(1_500, 0, 9),
            int_latency: window(77, 77, 9),
            ..Broker::default()
        };
        let bootstrap = Broker { nodeid: -1, state: "UP".into(), ..Broker::default() };
        Statistics {
            msg_cnt: messages,
            msg_size: bytes,
            msg_max: 111,
            msg_size_max: 222,
            // Neighbours that are easily mistaken for the queue.
            txmsgs: 333,
            txmsg_bytes: 444,
            replyq: 555,
            brokers: HashMap::from([("b/3".into(), broker), ("bootstrap".into(), bootstrap)]),
            ..Statistics::default()
        }
    }

    #[test]
    fn queue_and_round_trip_come_from_their_fields_in_base_units() {
        let text = scrape(|hub| hub.report(1, Role::Spooled, &producer(12, 3_400, 1)));
        let expected = [
            ("tollgate_kafka_queue_messages{client=\"spooled\"}", 12.0),
            ("tollgate_kafka_queue_bytes{client=\"spooled\"}", 3_400.0),
            ("tollgate_kafka_queue_limit_bytes{client=\"spooled\"}", 222.0),
            ("tollgate_kafka_broker_rtt_seconds{client=\"spooled\",broker=\"3\"}", 0.0025),
            ("tollgate_kafka_broker_rtt_p99_seconds{client=\"spooled\",broker=\"3\"}", 0.04),
            ("tollgate_kafka_broker_throttle_seconds{client=\"spooled\",broker=\"3\"}", 1.5),
            ("tollgate_kafka_broker_connections{client=\"spooled\",broker=\"3\"}", 1.0),
            ("tollgate_kafka_broker_request_timeouts_total{client=\"spooled\",broker=\"3\"}", 1.0),
            ("tollgate_kafka_broker_transmit_errors_total{client=\"spooled\",broker=\"3\"}", 5.0),
            ("tollgate_kafka_broker_request_retries_total{client=\"spooled\",broker=\"3\"}", 6.0),
            ("tollgate_kafka_broker_disconnects_total{client=\"spooled\",broker=\"3\"}", 7.0),
        ];
        for (name, value) in expected {
            assert_eq!(line(&text, name), Some(value), "{name} in\n{text}");
        }
        assert!(!text.contains("broker=\"-1\""), "bootstrap connections are no brokers");
    }

    #[test]
    fn clients_of_a_kind_are_summed_and_counters_rise_by_what_is_new() {
        let text = scrape(|hub| {
            hub.report(1, Role::Relay, &producer(10, 100, 2));
            hub.report(2, Role::Relay, &producer(1, 7, 1));
            hub.report(1, Role::Relay, &producer(20, 200, 5));
            hub.report(3, Role::Relay, &producer(500, 500, 0));
            hub.forget(3);
        });
        let relay = |name: &str| line(&text, &format!("tollgate_kafka_{name}"));
        assert_eq!(relay("queue_messages{client=\"relay\"}"), Some(21.0));
        assert_eq!(relay("queue_bytes{client=\"relay\"}"), Some(207.0));
        let timeouts = "broker_request_timeouts_total{client=\"relay\",broker=\"3\"}";
        assert_eq!(relay(timeouts), Some(6.0));
    }

    #[test]
    fn what_is_fetched_ahead_is_summed_over_partitions() {
        let partition = |messages, bytes| Partition {
            fetchq_cnt: messages,
            fetchq_size: bytes,
            msgq_bytes: 9_999,
            ..Partition::default()
        };
        let topic = Topic {
            topic: "cdrs".into(),
            partitions: HashMap::from([(0, partition(2, 30)), (1, partition(1, 12))]),
            ..Topic::default()
        };
        let statistics =
            Statistics { topics: HashMap::from([("cdrs".into(), topic)]), ..Statistics::default() };
        let text = scrape(|hub| hub.report(1, Role::Consumer, &statistics));
        let cdrs = |name: &str| {
            line(&text, &format!("tollgate_kafka_{name}{{client=\"consumer\",topic=\"cdrs\"}}"))
        };
        assert_eq!(cdrs("fetch_queue_messages"), Some(3.0));
        assert_eq!(cdrs("fetch_queue_bytes"), Some(42.0));
        assert!(!text.contains("queue_limit"), "a consumer has no send queue");
    }

    #[test]
    fn labels_are_bounded() {
        let brokers =
            (0..200).map(|nodeid| (format!("b/{nodeid}"), Broker { nodeid, ..Broker::default() }));
        let statistics = Statistics { brokers: brokers.collect(), ..Statistics::default() };
        let text = scrape(|hub| hub.report(1, Role::Spooled, &statistics));
        let series =
            text.lines().filter(|line| line.starts_with("tollgate_kafka_broker_connections{"));
        assert!(series.count() <= MOST_LABELS + 1);
    }
}

//! Keeps `docs/topics.md`, the page for the teams that read the topics, equal to the catalogue.
//! `UPDATE_DOCS=1` writes it.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use tollgate_schema::headers;
use tollgate_schema::json::descriptors;
use tollgate_schema::topics::{self, Topic};

#[test]
fn the_page_about_topics_says_what_the_catalogue_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/topics.md");
    let page = page();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed, page, "run with UPDATE_DOCS=1 and commit docs/topics.md");
}

fn page() -> String {
    let mut page = BEGINNING.to_owned();
    page.push_str("| topic | key | value | partitions | keeps |\n|--|--|--|--|--|\n");
    for topic in topics::ALL {
        writeln!(
            page,
            "| [`{name}`](#{name}) | `{key}` | `{message}` | {partitions} | {keeps} |",
            name = topic.name,
            key = topic.key,
            message = topic.message,
            partitions = topic.partitions,
            keeps = keeps(topic),
        )
        .unwrap();
    }
    page.push_str(READING);
    page.push_str("\n## Headers\n\nCloudEvents 1.0 in its Kafka binary binding.\n\n");
    page.push_str("| header | value |\n|--|--|\n");
    for (name, value) in
        headers::cloud_event(&topics::CDRS, "…".to_owned(), Some(1_716_174_373_000))
    {
        let meaning = match name {
            headers::CE_ID => "what to drop repeats by; see each topic",
            headers::CE_TIME => {
                "when it happened, RFC 3339 in UTC, such as `2024-05-20T03:06:13Z`; absent when \
                 unknown"
            }
            headers::CE_TYPE => "full name of the message, as in the table above",
            headers::CE_SOURCE => "`/voicecall/huawei`, whichever edge received it",
            _ => &format!("`{value}`"),
        };
        writeln!(page, "| `{name}` | {meaning} |").unwrap();
    }
    page.push_str("\nNo header holds a phone number or a session id.\n");
    for topic in topics::ALL {
        section(&mut page, topic);
    }
    page
}

fn section(page: &mut String, topic: &Topic) {
    let proto = descriptors().get_message_by_name(topic.message).unwrap();
    let file = proto.parent_file();
    write!(page, "\n## {}\n\n{}\n\n{}\n\n", topic.name, topic.purpose, notes(topic)).unwrap();
    writeln!(page, "- Value: `{}`, `proto/{}`.", topic.message, file.name()).unwrap();
    writeln!(page, "- Key: `{}`{}.", topic.key, key_note(topic)).unwrap();
    writeln!(page, "- Partitions: {}, {} copies each.", topic.partitions, topic.replication)
        .unwrap();
    let settings: Vec<_> =
        topic.config.iter().map(|(name, value)| format!("`{name}={value}`")).collect();
    writeln!(page, "- Settings: {}.", settings.join(", ")).unwrap();
}

fn keeps(topic: &Topic) -> String {
    match topic.retention_ms() {
        Some(ms) => format!("{} days", ms / 86_400_000),
        None => "the latest of each key".to_owned(),
    }
}

fn key_note(topic: &Topic) -> &'static str {
    match topic.name {
        "call-events" | "cdrs" => {
            ", empty when the record carried none; a call's events and its CDR are in partitions \
             of the same number"
        }
        "quarantine" => ", so that repeats of the same bytes have the same key",
        "user-states" => ": the phone number, or its pseudonym where the deployment asks for one",
        _ => "",
    }
}

fn notes(topic: &Topic) -> &'static str {
    match topic.name {
        "call-events" => {
            "At least once. Drop repeats by `ce_id`, which is `event_id`. Order within a call is usual but not \
             promised: sort by `occurred_at`, then `callin` < `callout` < `alerting` < `answer` < \
             `collectInfo` < `disconnect`. The platform never repeats a lost status notification, \
             so any event may be missing, and several share a second."
        }
        "cdrs" => {
            "At least once. Drop repeats by `ce_id`, which is `event_id`. The platform may send a record again with \
             other content: the same `record_id` under another `event_id` is a revision, and all \
             revisions are here. Which one billing charged is the `event_id` of the \
             record's charge with the greatest `revision` in `rated-cdrs`. A CDR may come before the call's last events, hours \
             after them, or never."
        }
        "quarantine" => {
            "At least once. Drop repeats by `ce_id`, which is `quarantine_id`: the same bytes have \
             the same id wherever they were found. `content` holds the bytes as received and therefore personal data; \
             `detail` and `location` never do."
        }
        "rated-cdrs" => {
            "At least once, written in transactions: read with `isolation.level=read_committed` \
             and drop repeats by `ce_id`, which is `entry_id`. Money is `amount_micros`, millionths of a unit of \
             `currency`; sum it as an integer, charges and reversals alike (a reversal's figures \
             are negative), and never across currencies. A record that is not charged appears \
             with the `status` that says why."
        }
        "user-states" => {
            "At least once, written in transactions: read with `isolation.level=read_committed`, \
             from the earliest offset on, and keep of each `number` the state with the greatest \
             `version`; a repeat or an older version is to be ignored. `ce_id` is a hash of \
             both. A message without a value, should one come, withdraws the number. A state is what was known at `as_of`: `calls[].expires_at` says \
             when a call is taken to have ended if nothing else is heard, and a new state is \
             published then."
        }
        name => panic!("write here what a reader of {name} must know"),
    }
}

const BEGINNING: &str = "\
<!-- Generated from the catalogue in crates/schema by its test topics_page (UPDATE_DOCS=1). -->

# Topics

What Tollgate publishes, and how to read it. Values are protobuf messages of package `tollgate.v1`
under `proto/`; the comments there say what each field means. Fields are only ever added: ignore
the ones you do not know, and treat an enum value you do not know as its `UNSPECIFIED`.

";

const READING: &str = "
`tollgate topics create` creates them like this, and `tollgate topics check` compares. A cluster
may grant more than the table says: more partitions (the same number for `call-events` and `cdrs`),
more copies, longer retention.

## Reading without surprises

- **Drop repeats by `ce_id`.** Every topic is at least once: an edge, a relay or an operator's
  replay may publish a message again, hours later, under the same `ce_id`. In a warehouse make the
  id part of the key of the table, rather than remembering the ids of the last minutes.
- **Read committed.** `rated-cdrs`, `user-states`, and a part of `quarantine`, are written in
  transactions, as is what an operator replays to `call-events` and `cdrs`. With
  `isolation.level=read_committed` you never see what was taken back.
- **Two ids.** `record_id` says which status or CDR it is, `event_id` which content of it. How they
  are computed, and a Python version: `proto/tollgate/v1/ids.md`.
- **The original is there.** `original_json` is the record as the platform sent it, unknown fields
  included; `unreadable_fields` names what could not be read. Absent is not zero: `optional` fields
  tell one from the other.
- **`provenance` is not content.** Repeats of one event differ in it.
- Keys are partitioned as the Java client does (murmur2).
- Phone numbers, session ids, `user_data` and `original_json` are personal data.

With Tollgate at hand, `tollgate tail cdrs` shows messages as JSON; of `tollgate dev`, which has no
brokers, `tollgate tail cdrs --dev http://127.0.0.1:8081` does. Without it, `kcat` and `protoc`
(on Debian: packages kcat, protobuf-compiler, libprotobuf-dev):

```sh
# One message as text
kcat -C -b $BROKERS -t cdrs -o -1 -c 1 -e -X isolation.level=read_committed -f '%s' |
  protoc -I proto --decode=tollgate.v1.CallDetailRecord tollgate/v1/call_detail_record.proto

# Keys, partitions, offsets and headers of what comes
kcat -C -b $BROKERS -t rated-cdrs -o end -X isolation.level=read_committed \\
  -f '%k %p/%o %h\\n'

# Classes for your language
protoc -I proto --python_out=. proto/tollgate/v1/*.proto
```
";

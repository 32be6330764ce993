//! The result depends on the set of sightings: not on their order, repetition or batching.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Ledger, Member, NOW, TARIFF, callback, dearer, sighting, source};
use proptest::prelude::*;
use tollgate_billing::digest::{Authenticity, Digest, Place};
use tollgate_billing::entry::{Bucket, Entry, Measures};
use tollgate_billing::ledger::{Account, Change};
use tollgate_billing::pricing::{Book, Desk};
use tollgate_billing::rules::Rules;
use tollgate_billing::{Application, CdrItem, Settings};
use tollgate_rating::Tariff;
use tollgate_schema::ids::RecordId;
use tollgate_schema::v1;

/// Contents of a record: of different length, and one that ends too far after early receipts.
fn content(number: u8) -> v1::CallDetailRecord {
    let mut cdr = callback(30 + i64::from(number) * 60);
    if number == 3 {
        cdr.ended_at = Some(tollgate_schema::time::proto_from_millis(NOW + 3_600_000));
    }
    if number == 4 {
        // Without any instant it is billed by its receipt.
        cdr = v1::CallDetailRecord { app_key: "key1".to_owned(), ..Default::default() };
    }
    cdr
}

fn arb_sighting(records: u8) -> impl Strategy<Value = CdrItem> {
    (0..records, 0..5_u8, 0..6_i64, 0..3_i64, 0..3_usize).prop_map(
        |(record, number, received, authenticity, application)| {
            let mut item = sighting(record, number, content(number));
            item.received_at_ms = NOW - 3000 + received * 1000;
            item.authenticity = Authenticity::from_stored(authenticity);
            ["", "key1", "key2"][application].clone_into(&mut item.application);
            item
        },
    )
}

/// Cuts a list into batches at the given places.
fn cut(items: &[CdrItem], places: &[prop::sample::Index]) -> Vec<Vec<CdrItem>> {
    let mut cuts: Vec<usize> = places.iter().map(|place| place.index(items.len() + 1)).collect();
    cuts.extend([0, items.len()]);
    cuts.sort_unstable();
    let batch = |pair: &[usize]| items[pair[0]..pair[1]].to_vec();
    cuts.windows(2).map(batch).filter(|batch| !batch.is_empty()).collect()
}

fn applications() -> Vec<Application> {
    let app = |key: &str, name: &str| Application {
        app_key: key.to_owned(),
        name: name.to_owned(),
        service: None,
    };
    vec![app("key1", "shop"), app("key2", "bank")]
}

struct Office {
    rules: Rules,
    book: Book,
}

impl Office {
    fn new() -> Self {
        let rules = Settings::default().rules(applications()).expect("rules");
        let mut book = Book::default();
        book.activate(i64::MIN, Arc::new(Tariff::parse(TARIFF).expect("tariff")));
        Self { rules, book }
    }

    /// Every entry of a record, and its account in the end.
    fn bill(&self, batches: &[Vec<CdrItem>]) -> (Vec<Entry>, Account) {
        let desk = Desk { rules: &self.rules, book: &self.book };
        let place = Place::of(&source(0));
        let mut account: Option<Account> = None;
        let mut entries = Vec::new();
        for batch in batches {
            let digests: Vec<_> = batch.iter().map(|item| Digest::of(item, &place)).collect();
            if let Some(account) = &mut account {
                entries.extend(account.see(&digests, &desk).replacement.into_iter().flatten());
            } else {
                let record_id = RecordId::from_bytes([0; 16]);
                let opened = Account::open(record_id, &digests, &desk).expect("sightings");
                entries.push(opened.charge.clone());
                account = Some(opened);
            }
        }
        (entries, account.expect("at least one batch"))
    }
}

/// What a set of sightings must come to, written down once more without merging anything.
fn expected_in_force(items: &[CdrItem]) -> u8 {
    let key = |number: u8| {
        let own = || items.iter().filter(move |item| item.event_id.as_bytes()[0] == number);
        let best = own().map(|item| item.authenticity).max()?;
        let first = own().map(|item| item.received_at_ms).min()?;
        Some((best, first, number))
    };
    (0..5).filter_map(key).max().expect("sightings").2
}

fn sum(entries: &[Entry]) -> BTreeMap<Bucket, Measures> {
    let mut sums: BTreeMap<Bucket, Measures> = BTreeMap::new();
    for entry in entries {
        *sums.entry(entry.bucket.clone()).or_default() += entry.measures;
    }
    sums.retain(|_, sum| *sum != Measures::default());
    sums
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// I3.
    #[test]
    fn any_order_repetition_and_batching_ends_in_the_same_charge(
        (items, again) in prop::collection::vec(arb_sighting(1), 1..9).prop_flat_map(|items| {
            let repeated = prop::collection::vec(prop::sample::select(items.clone()), 0..5);
            let again = repeated.prop_flat_map({
                let items = items.clone();
                move |more| Just([items.clone(), more].concat()).prop_shuffle()
            });
            (Just(items), again)
        }),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        again_places in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let office = Office::new();
        let (entries, account) = office.bill(&cut(&items, &places));
        let (other_entries, other) = office.bill(&cut(&again, &again_places));
        prop_assert_eq!(account.charge.event_id.as_bytes()[0], expected_in_force(&items));
        prop_assert!(
            account.charge.comes_to_the_same(&other.charge),
            "{:?} and {:?}", account.charge, other.charge
        );
        prop_assert_eq!(sum(&entries), sum(&other_entries));

        // The chain: charge 1, reversal 1, charge 2, …, the last one in force.
        for (index, entry) in other_entries.iter().enumerate() {
            let kind = if index % 2 == 0 { "charge" } else { "reversal" };
            prop_assert_eq!((entry.kind.name(), entry.revision), (kind, index as u32 / 2 + 1));
            prop_assert_eq!(entry.message.entry_id.clone(), entry.entry_id().to_string());
        }
        prop_assert_eq!(other_entries.last(), Some(&other.charge));
    }

    #[test]
    fn repeats_of_what_was_seen_change_nothing(
        items in prop::collection::vec(arb_sighting(1), 1..9),
        repeats in prop::collection::vec(any::<prop::sample::Index>(), 1..9),
    ) {
        let office = Office::new();
        let (_, mut account) = office.bill(std::slice::from_ref(&items));
        let before = account.clone();
        let place = Place::of(&source(7));
        let again: Vec<_> =
            repeats.iter().map(|repeat| Digest::of(repeat.get(&items), &place)).collect();
        let desk = Desk { rules: &office.rules, book: &office.book };
        prop_assert_eq!(account.see(&again, &desk), Change::default());
        prop_assert_eq!(account, before);
    }
}

/// What happens to a ledger.
#[derive(Debug, Clone)]
enum Step {
    Batch(i32, Vec<CdrItem>),
    Activate(bool, bool),
    Rerate,
    Tick(i32),
    TakeOver(i32),
}

fn arb_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2, prop::collection::vec(arb_sighting(4), 1..6))
            .prop_map(|(partition, items)| Step::Batch(partition, items)),
        2 => any::<(bool, bool)>().prop_map(|(dearer, late)| Step::Activate(dearer, late)),
        1 => Just(Step::Rerate),
        2 => (0..2).prop_map(Step::Tick),
        1 => (0..2).prop_map(Step::TakeOver),
    ]
}

async fn run(steps: Vec<Step>) {
    let ledger = Ledger::sqlite();
    let store = ledger.again(applications());
    let mut members = [Member::join(&store, 0).await, Member::join(&store, 1).await];
    let mut seen: Vec<CdrItem> = Vec::new();
    for step in steps {
        match step {
            Step::Batch(partition, items) => {
                seen.extend(items.clone());
                members[partition as usize].apply(&store, items).await.expect("apply");
            }
            Step::Activate(dear, late) => {
                let tariff = if dear { dearer() } else { TARIFF.to_owned() };
                let from = if late { NOW - 61_000 } else { i64::MIN };
                let version = store.register_tariff(&tariff, NOW).await.expect("register");
                store.activate_tariff(&version, from, NOW).await.expect("activate");
            }
            Step::Rerate => {
                store.rerate(0, i64::MAX, NOW).await.expect("rerate");
            }
            Step::Tick(partition) => {
                members[partition as usize].tick(&store).await;
            }
            Step::TakeOver(partition) => {
                members[partition as usize] = Member::join(&store, partition).await;
            }
        }
        let checks = store.checks().await.expect("checks");
        assert!(checks.consistent, "{checks:?}");
    }
    let waiting: i64 =
        store.checks().await.expect("checks").sources.iter().map(|source| source.waiting).sum();
    let page = store.ledger(None, 10_000).await.expect("ledger");
    assert_eq!(waiting, page.entries.len() as i64, "nothing was published");
    for record in 0..4 {
        let own: Vec<_> =
            seen.iter().filter(|item| item.record_id.as_bytes()[0] == record).cloned().collect();
        if own.is_empty() {
            continue;
        }
        let in_force = ledger.net(record).await.1.expect("entries");
        assert_eq!(in_force.as_bytes()[0], expected_in_force(&own));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// I8.
    #[test]
    fn after_every_step_of_any_history_the_ledger_equals_the_aggregates(
        steps in prop::collection::vec(arb_step(), 1..14)
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime")
            .block_on(run(steps));
    }
}

//! What every database must do. Each test runs against SQLite and against a real PostgreSQL.

mod common;

use bytes::Bytes;
use common::{
    Ledger, Member, NOW, TARIFF, apply_together, callback, connect, dearer, key, on_both, sighting,
    source,
};
use prost::Message;
use tollgate_billing::digest::Authenticity;
use tollgate_billing::entry::Kind;
use tollgate_billing::{Application, BillingError, BillingStore, Settings};
use tollgate_schema::ids::RecordId;
use tollgate_schema::v1::RatingStatus::{ApplicationMismatch, Implausible, Rated, Unrated};
use tollgate_schema::{time, topics, v1};
use tollgate_store::{Found, Migration, Schema};
use tollgate_stream::{Outgoing, Store, StoreError};

on_both! {
    async fn a_record_is_charged_once_however_often_it_comes(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let mut first = ledger.join(0).await;
        let item = || sighting(1, 1, callback(70));
        // Twice in a batch, in a later batch, from another partition, and replayed later.
        first.apply(&ledger.store, vec![item(), item()]).await.unwrap();
        first.apply(&ledger.store, vec![item()]).await.unwrap();
        let mut other = ledger.join(1).await;
        let mut late = item();
        late.received_at_ms += 3_600_000;
        other.apply(&ledger.store, vec![late]).await.unwrap();

        // A: 70 s, two minutes; B: 60 s, one minute; 0.18 each.
        assert_eq!(ledger.story(1).await, [("charge", 1, Rated, 540_000)]);
        assert_eq!(first.pending(&ledger.store).await.len(), 1);
        assert!(other.pending(&ledger.store).await.is_empty());
        let checks = ledger.consistent().await;
        assert_eq!((checks.records, checks.charges_in_force), (1, 1));
    }

    async fn partitions_that_write_together_charge_a_record_once(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let (mut a, mut b, mut c) = (ledger.join(0).await, ledger.join(1).await, ledger.join(2).await);
        let mut revision = sighting(1, 2, callback(130));
        revision.received_at_ms += 1000;
        let of_a = vec![sighting(1, 1, callback(70)), sighting(2, 1, callback(70))];
        let of_b = vec![sighting(1, 1, callback(70)), revision, sighting(3, 1, callback(70))];
        let poison = vec![Outgoing::event(&topics::QUARANTINE, "k", "id", None, Bytes::from("bad"))];
        let batches = vec![(&mut a, of_a, vec![]), (&mut b, of_b, vec![]), (&mut c, vec![], poison)];
        apply_together(&ledger.store, batches).await.unwrap();

        let nets = [ledger.net(1).await.0, ledger.net(2).await.0, ledger.net(3).await.0];
        assert_eq!(nets, [900_000, 540_000, 540_000]);
        let checks = ledger.consistent().await;
        assert_eq!((checks.records, checks.charges_in_force), (3, 3));
        // Each entry waits at one of the partitions, the poison at its own.
        let mut waiting = 0;
        for member in [&a, &b] {
            waiting += member.pending(&ledger.store).await.len();
        }
        let mut entries = 0;
        for record in [1, 2, 3] {
            entries += ledger.entries(record).await.len();
        }
        assert_eq!(waiting, entries);
        assert_eq!(c.pending(&ledger.store).await.len(), 1);

        // One is taken over: in its company nobody writes, without it the others do.
        let taken = ledger.join(1).await;
        assert_eq!(taken.next, b.next);
        let new = |record| vec![sighting(record, 1, callback(70))];
        let batches = vec![(&mut a, new(4), vec![]), (&mut b, new(5), vec![])];
        let refused = apply_together(&ledger.store, batches).await;
        assert_eq!(refused, Err(StoreError::Fenced));
        assert!(ledger.entries(4).await.is_empty() && ledger.entries(5).await.is_empty());
        a.apply(&ledger.store, new(4)).await.unwrap();
        assert_eq!(ledger.net(4).await.0, 540_000);
        ledger.consistent().await;
    }

    async fn a_revision_takes_the_charge_back_and_charges_again(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let mut member = ledger.join(0).await;
        member.apply(&ledger.store, vec![sighting(1, 1, callback(70))]).await.unwrap();
        let mut revision = sighting(1, 2, callback(130));
        revision.received_at_ms += 1000;
        member.apply(&ledger.store, vec![revision]).await.unwrap();
        assert_eq!(
            ledger.story(1).await,
            [
                ("charge", 1, Rated, 540_000),
                ("reversal", 1, Rated, -540_000),
                ("charge", 2, Rated, 900_000),
            ]
        );
        let entries = ledger.entries(1).await;
        let ids: Vec<_> = entries.iter().map(|e| e.entry.message.entry_id.clone()).collect();
        let expected: Vec<_> =
            entries.iter().map(|e| e.entry.entry_id().to_string()).collect();
        assert_eq!(ids, expected);
        assert_eq!(entries[1].entry.message.legs[0].billed_minutes, -2);
        let published: Vec<_> = member
            .pending(&ledger.store)
            .await
            .into_iter()
            .map(|row| v1::RatedCdr::decode(row.record.value.unwrap()).unwrap())
            .collect();
        let kept: Vec<_> = entries.into_iter().map(|e| e.entry.message).collect();
        assert_eq!(published, kept);
        ledger.consistent().await;
    }

    async fn the_newest_and_best_authenticated_content_is_in_force(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let mut member = ledger.join(0).await;
        let seen = |content: u8, after_ms: i64, authenticity| {
            let mut item = sighting(1, content, callback(70 + i64::from(content) * 60));
            item.received_at_ms += after_ms;
            item.authenticity = authenticity;
            item
        };
        let in_force = async || ledger.net(1).await.1.unwrap().as_bytes()[0];
        member.apply(&ledger.store, vec![seen(2, 100, Authenticity::Absent)]).await.unwrap();
        // Older, so not in force, though it comes later.
        member.apply(&ledger.store, vec![seen(1, 50, Authenticity::Absent)]).await.unwrap();
        assert_eq!(in_force().await, 2);
        // Newest, but with a wrong proof.
        member.apply(&ledger.store, vec![seen(3, 200, Authenticity::Failed)]).await.unwrap();
        assert_eq!(in_force().await, 2);
        // An old content was seen with a proof, too.
        member.apply(&ledger.store, vec![seen(1, 300, Authenticity::Verified)]).await.unwrap();
        assert_eq!(in_force().await, 1);
        // The sighting that makes another content the newest brings nothing but an earlier time
        // of the one in force: the other's content comes from the database.
        member.apply(&ledger.store, vec![seen(4, 90, Authenticity::Verified)]).await.unwrap();
        assert_eq!(in_force().await, 4);
        member.apply(&ledger.store, vec![seen(4, 10, Authenticity::Absent)]).await.unwrap();
        assert_eq!(in_force().await, 1);
        assert_eq!(ledger.net(1).await.0, 180_000 * 5);
        ledger.consistent().await;
    }

    async fn what_no_tariff_covers_is_kept_visible_and_rated_when_one_does(ledger: Ledger) {
        let mut member = ledger.join(0).await;
        let mut other = ledger.join(1).await;
        member.apply(&ledger.store, vec![sighting(1, 1, callback(70))]).await.unwrap();
        other.apply(&ledger.store, vec![sighting(2, 2, callback(70))]).await.unwrap();
        assert_eq!(ledger.story(1).await, [("charge", 1, Unrated, 0)]);
        assert_eq!(ledger.store.unrated().await.unwrap(), 2);
        assert_eq!(member.pending(&ledger.store).await.len(), 1);

        let version = ledger.activate(TARIFF).await;
        // The command itself writes no result; each owner does what is its own.
        assert_eq!(ledger.store.unrated().await.unwrap(), 2);
        member.tick(&ledger.store).await;
        assert_eq!(ledger.store.unrated().await.unwrap(), 1);
        other.tick(&ledger.store).await;
        assert_eq!(ledger.store.unrated().await.unwrap(), 0);
        assert_eq!(
            ledger.story(1).await,
            [("charge", 1, Unrated, 0), ("reversal", 1, Unrated, 0), ("charge", 2, Rated, 540_000)]
        );
        let entries = ledger.entries(1).await;
        assert!(entries[0].entry.message.tariff_version.is_empty());
        assert_eq!(entries[2].entry.message.tariff_version, version);
        assert_eq!(entries[2].entry.message.policy, "per_leg");
        assert_eq!(member.pending(&ledger.store).await.len(), 3);
        let jobs = ledger.store.jobs().await.unwrap();
        assert!(jobs.len() == 2 && jobs.iter().all(|job| job.done && job.changed == 1), "{jobs:?}");
        ledger.consistent().await;
    }

    async fn implausible_records_are_kept_visible_and_never_charged(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let mut member = ledger.join(0).await;
        let too_long = callback(25 * 3600);
        let mut future = callback(70);
        future.ended_at = Some(time::proto_from_millis(NOW + 3_700_000));
        let mut unreadable = callback(70);
        unreadable.ended_at = None;
        unreadable.unreadable_fields = vec!["callEndTime".to_owned()];
        let items = vec![sighting(1, 1, too_long), sighting(2, 2, future),
                         sighting(3, 3, unreadable)];
        member.apply(&ledger.store, items).await.unwrap();
        for (record, flag) in
            [(1, "too_long"), (2, "ends_in_future"), (3, "unreadable_times")]
        {
            assert_eq!(ledger.story(record).await, [("charge", 1, Implausible, 0)]);
            let entry = ledger.entries(record).await.remove(0).entry;
            assert!(entry.message.flags.iter().any(|found| found == flag), "{flag}");
            assert_eq!((entry.measures.attempts, entry.measures.seconds), (1, 0));
        }
        assert_eq!(member.pending(&ledger.store).await.len(), 3);
        ledger.consistent().await;
    }

    async fn a_record_of_another_application_is_parked_until_it_is_configured(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let app = |key: &str, name: &str| Application {
            app_key: key.to_owned(), name: name.to_owned(), service: None,
        };
        let store = ledger.again(vec![app("key9", "shop")]);
        let mut member = Member::join(&store, 0).await;
        member.apply(&store, vec![sighting(1, 1, callback(70))]).await.unwrap();
        assert_eq!(ledger.story(1).await, [("charge", 1, ApplicationMismatch, 0)]);

        let store = ledger.again(vec![app("key9", "shop"), app("key1", "bank")]);
        // Seen again it stays parked: configuration is no sighting.
        member.apply(&store, vec![sighting(1, 1, callback(70))]).await.unwrap();
        assert_eq!(ledger.story(1).await.len(), 1);
        store.rerate(0, i64::MAX, NOW).await.unwrap();
        member.tick(&store).await;
        assert_eq!(ledger.net(1).await.0, 540_000);
        assert_eq!(ledger.entries(1).await[2].entry.message.application, "key1");
        ledger.consistent().await;
    }

    async fn two_consumers_on_one_partition_cannot_both_write(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let mut old = ledger.join(0).await;
        old.apply(&ledger.store, vec![sighting(1, 1, callback(70))]).await.unwrap();
        let mut new = ledger.join(0).await;
        assert_eq!(new.next, 1);
        let fenced = old.apply(&ledger.store, vec![sighting(2, 2, callback(70))]).await;
        assert_eq!(fenced, Err(StoreError::Fenced));
        let rows = old.pending(&ledger.store).await;
        assert_eq!(ledger.store.published(&old.claim, &rows).await, Err(StoreError::Fenced));
        ledger.store.rerate(0, i64::MAX, NOW).await.unwrap();
        assert_eq!(ledger.store.tick(&old.claim, NOW).await, Err(StoreError::Fenced));
        assert!(ledger.entries(2).await.is_empty());
        // The right epoch at the wrong offset cannot either.
        new.next = 7;
        let misplaced = new.apply(&ledger.store, vec![sighting(2, 2, callback(70))]).await;
        assert_eq!(misplaced, Err(StoreError::Fenced));
        new.next = 1;
        new.apply(&ledger.store, vec![sighting(2, 2, callback(70))]).await.unwrap();
        assert_eq!(ledger.consistent().await.records, 2);
    }

    async fn a_crash_between_apply_and_relay_loses_nothing_and_repeats_the_same_ids(
        ledger: Ledger
    ) {
        ledger.activate(TARIFF).await;
        let mut member = ledger.join(0).await;
        let items = vec![sighting(1, 1, callback(70)), sighting(2, 2, callback(70))];
        member.apply(&ledger.store, items).await.unwrap();
        let before = member.pending(&ledger.store).await;
        assert_eq!(before.len(), 2);
        drop(member);

        // Another process takes over, publishes, and crashes before it removes the rows.
        let store = ledger.again(Vec::new());
        let member = Member::join(&store, 0).await;
        assert_eq!(member.pending(&store).await, before);
        let store = ledger.again(Vec::new());
        let member = Member::join(&store, 0).await;
        assert_eq!((member.pending(&store).await, member.next), (before.clone(), 2));
        store.published(&member.claim, &before[..1]).await.unwrap();
        assert_eq!(member.pending(&store).await, before[1..]);
        let checks = ledger.consistent().await;
        assert_eq!((checks.sources[0].entries, checks.sources[0].waiting), (2, 1));
    }

    async fn a_session_is_found_in_every_hour_that_was_billed(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let mut member = ledger.join(0).await;
        let ended = |hours_ago: i64, session: &str| {
            let mut cdr = callback(70);
            session.clone_into(&mut cdr.session_id);
            cdr.ended_at = Some(time::proto_from_millis(NOW - hours_ago * 3_600_000));
            cdr
        };
        let items = vec![
            sighting(1, 1, ended(1, "long")),
            sighting(2, 2, ended(5, "long")),
            sighting(3, 3, ended(30, "long")),
            sighting(4, 4, ended(30, "another")),
        ];
        member.apply(&ledger.store, items).await.unwrap();
        // A revision moves a charge to another hour: the reversal stays where the charge was.
        member.apply(&ledger.store, vec![sighting(1, 9, ended(2, "long"))]).await.unwrap();
        let found = ledger.store.entries_of_session("long").await.unwrap().entries;
        let found: Vec<_> =
            found.iter().map(|it| (it.entry.record_id, it.entry.revision, it.entry.kind)).collect();
        let of = |record: u8, revision, kind| (RecordId::from_bytes([record; 16]), revision, kind);
        let expected = [
            of(1, 1, Kind::Charge),
            of(1, 1, Kind::Reversal),
            of(1, 2, Kind::Charge),
            of(2, 1, Kind::Charge),
            of(3, 1, Kind::Charge),
        ];
        assert_eq!(found, expected);
        ledger.consistent().await;
    }

    async fn what_cannot_be_applied_goes_to_quarantine_in_the_same_transaction(ledger: Ledger) {
        let mut member = ledger.join(0).await;
        let poison = Outgoing::event(&topics::QUARANTINE, "k", "id", None, Bytes::from("bad"));
        let batch = vec![sighting(1, 1, callback(70))];
        member.apply_with(&ledger.store, batch, vec![poison.clone()]).await.unwrap();
        let rows = member.pending(&ledger.store).await;
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].record, poison);
        assert_eq!(ledger.consistent().await.sources[0].waiting, 1);
    }

    async fn the_ledger_is_paged_through_without_gap_or_repetition(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        for partition in 0..3 {
            let mut member = ledger.join(partition).await;
            for batch in 0..3 {
                let item = |n: u8| sighting(partition as u8 * 20 + batch * 5 + n, 1, callback(70));
                member.apply(&ledger.store, (0..5).map(item).collect()).await.unwrap();
            }
        }
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = ledger.store.ledger(after, 7).await.unwrap();
            seen.extend(page.entries.iter().map(|found| found.cursor));
            after = page.next();
            if after.is_none() { break }
            assert_eq!(page.entries.len(), 7);
        }
        assert_eq!(seen.len(), 45);
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
        let positions = |source: [u8; 16]| -> Vec<i64> {
            seen.iter().filter(|c| c.source == source).map(|c| c.position).collect()
        };
        for partition in 0..3 {
            let key = tollgate_store::source_id(&source(partition));
            assert_eq!(positions(key), (1..=15).collect::<Vec<_>>());
        }
    }

    async fn a_page_is_bounded_in_bytes_and_the_next_goes_on_where_it_ends(ledger: Ledger) {
        let mut member = ledger.join(0).await;
        let items = (0..20).map(|record| sighting(record, 1, callback(70))).collect();
        member.apply(&ledger.store, items).await.unwrap();
        // As an earlier version wrote it.
        let session = "s".repeat(900 * 1024);
        let message = v1::RatedCdr { session_id: session.clone(), ..v1::RatedCdr::default() };
        ledger
            .rewrite(
                "UPDATE billing_ledger SET message = $1, session_key = $2",
                &[&message.encode_to_vec(), &key("session", &session)],
            )
            .await;
        let (mut sizes, mut after) = (Vec::new(), None);
        loop {
            let page = ledger.store.ledger(after, 1000).await.unwrap();
            sizes.push(page.entries.len());
            after = page.next();
            if after.is_none() { break }
        }
        assert!(sizes.len() > 1 && sizes.iter().sum::<usize>() == 20, "{sizes:?}");
        assert!(ledger.store.entries_of_session(&session).await.unwrap().more);
    }

    async fn a_changed_ledger_or_aggregate_is_found(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let mut member = ledger.join(0).await;
        let items = vec![sighting(1, 1, callback(70)), sighting(2, 2, callback(70))];
        member.apply(&ledger.store, items).await.unwrap();
        ledger.consistent().await;
        ledger.sql("UPDATE billing_aggregates SET amount_micros = amount_micros + 1").await;
        let checks = ledger.store.checks().await.unwrap();
        assert!(!checks.consistent);
        assert_eq!(checks.differences.len(), 1);
        assert_eq!(checks.differences[0].amount_micros, -1);
        ledger.sql("UPDATE billing_aggregates SET amount_micros = amount_micros - 1").await;
        ledger.consistent().await;
        ledger.sql("DELETE FROM billing_ledger WHERE position = 2").await;
        let checks = ledger.store.checks().await.unwrap();
        assert!(!checks.consistent && checks.misplaced == 1, "{checks:?}");
        assert_ne!(checks.sources[0].entries, checks.sources[0].counted);
    }

    async fn hours_cut_in_one_time_zone_are_not_mixed_with_another(ledger: Ledger) {
        ledger.store.ready().await.unwrap();
        let settings = Settings { time_zone: "Europe/Berlin".to_owned(), ..Settings::default() };
        let database = connect(&ledger.settings);
        let store = BillingStore::open(database, &settings, Vec::new()).unwrap();
        let refused = store.fence(&source(0)).await.unwrap_err();
        assert!(matches!(&refused, StoreError::Refused(text)
            if text.contains("Asia/Shanghai") && text.contains("Europe/Berlin")), "{refused}");
    }

    async fn a_new_tariff_leaves_charges_alone_until_a_rerate_is_asked_for(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let mut member = ledger.join(0).await;
        let items = vec![sighting(1, 1, callback(70)), sighting(2, 2, callback(70))];
        member.apply(&ledger.store, items).await.unwrap();
        let version = ledger.activate(&dearer()).await;
        member.tick(&ledger.store).await;
        assert_eq!(ledger.net(1).await.0, 540_000);
        // A repeat is no reason to rate again, either.
        member.apply(&ledger.store, vec![sighting(1, 1, callback(70))]).await.unwrap();
        assert_eq!(ledger.story(1).await.len(), 1);
        member.apply(&ledger.store, vec![sighting(3, 3, callback(70))]).await.unwrap();
        assert_eq!(ledger.net(3).await.0, 600_000);

        // Only what was billed in the range: nothing yet.
        ledger.store.rerate(0, 1000, NOW).await.unwrap();
        member.tick(&ledger.store).await;
        assert_eq!(ledger.net(1).await.0, 540_000);
        ledger.store.rerate(NOW - 3_600_000, NOW, NOW).await.unwrap();
        member.tick(&ledger.store).await;
        for record in 1..=3 {
            assert_eq!(ledger.net(record).await.0, 600_000);
        }
        assert_eq!(ledger.entries(1).await[2].entry.message.tariff_version, version);
        assert_eq!(ledger.story(3).await.len(), 1);
        ledger.consistent().await;
    }

    async fn a_tariff_applies_from_the_instant_it_was_activated_for(ledger: Ledger) {
        let mut member = ledger.join(0).await;
        ledger.activate(TARIFF).await;
        let version = ledger.store.register_tariff(&dearer(), NOW).await.unwrap();
        ledger.store.activate_tariff(&version, NOW - 120_000, NOW).await.unwrap();
        let mut early = callback(70);
        early.ended_at = Some(time::proto_from_millis(NOW - 120_001));
        let late = callback(70);
        let items = vec![sighting(1, 1, early), sighting(2, 2, late)];
        member.apply(&ledger.store, items).await.unwrap();
        assert_ne!(ledger.entries(1).await[0].entry.message.tariff_version, version);
        assert_eq!(ledger.entries(2).await[0].entry.message.tariff_version, version);
    }

    async fn tariffs_are_registered_once_and_only_registered_ones_are_activated(ledger: Ledger) {
        let version = ledger.store.register_tariff(TARIFF, NOW).await.unwrap();
        let same = format!("# another comment\n{TARIFF}");
        assert_eq!(ledger.store.register_tariff(&same, NOW + 1).await.unwrap(), version);
        let bad = ledger.store.register_tariff("name = 1", NOW).await;
        assert!(matches!(bad, Err(BillingError::InvalidTariff(_))), "{bad:?}");
        let unknown = ledger.store.activate_tariff("00", 0, NOW).await;
        assert_eq!(unknown, Err(BillingError::UnknownTariff("00".to_owned())));
        let first = ledger.store.activate_tariff(&version, 0, NOW).await.unwrap();
        let again = ledger.store.activate_tariff(&version, 0, NOW + 1).await.unwrap();
        assert_eq!(first, again);
        let (tariffs, activations) = ledger.store.tariffs().await.unwrap();
        assert_eq!((tariffs.len(), activations.len()), (1, 1));
        assert_eq!(tariffs[0].content, TARIFF);
    }

    async fn who_only_reads_makes_and_changes_no_tables(ledger: Ledger) {
        let nothing = |others: &[&str]| {
            Ok(Found::Nothing { others: others.iter().map(ToString::to_string).collect() })
        };
        assert_eq!(ledger.store.find().await, nothing(&[]));
        assert!(ledger.store.tariffs_there().await.is_err());
        assert_eq!(ledger.store.find().await, nothing(&[]));
        let step = Migration {
            postgres: "CREATE TABLE guests (id bigint)",
            sqlite: "CREATE TABLE guests (id INTEGER) STRICT",
        };
        let guests = Schema::new("guests", &["guests"], vec![step].leak());
        guests.ensure(ledger.store.database()).await.unwrap();
        assert_eq!(ledger.store.find().await, nothing(&["guests"]));

        ledger.activate(TARIFF).await;
        assert_eq!(ledger.store.find().await, Ok(Found::Current));
        let reader = ledger.again(Vec::new());
        assert_eq!(reader.tariffs_there().await, ledger.store.tariffs().await);
        assert!(!reader.has_served("billing").await.unwrap());
        ledger.join(0).await;
        assert!(reader.has_served("billing").await.unwrap());
        assert!(!reader.has_served("user-state").await.unwrap());

        ledger.sql("DELETE FROM tollgate_schema WHERE domain = 'billing' AND version > 1").await;
        assert_eq!(reader.find().await, Ok(Found::Older));
        ledger.sql("UPDATE tollgate_schema SET digest = 'other' WHERE domain = 'billing'").await;
        let error = reader.find().await.unwrap_err().to_string();
        assert!(error.contains("release line"), "{error}");
    }

    async fn a_record_revised_through_another_partition_is_summed_under_the_writer(
        ledger: Ledger
    ) {
        ledger.activate(TARIFF).await;
        let mut first = ledger.join(0).await;
        let mut second = ledger.join(1).await;
        first.apply(&ledger.store, vec![sighting(1, 1, callback(70))]).await.unwrap();
        let mut revision = sighting(1, 2, callback(130));
        revision.received_at_ms += 1;
        second.apply(&ledger.store, vec![revision]).await.unwrap();
        assert_eq!(second.pending(&ledger.store).await.len(), 2);
        let entries = ledger.entries(1).await;
        assert_eq!(entries[0].cursor.source, tollgate_store::source_id(&source(0)));
        assert_eq!(entries[2].cursor.source, tollgate_store::source_id(&source(1)));
        assert_eq!(entries[2].entry.message.source.as_ref().unwrap().partition, 1);
        assert_eq!(ledger.net(1).await.0, 900_000);
        ledger.consistent().await;
    }

    async fn a_job_walks_through_more_than_one_page(ledger: Ledger) {
        let mut member = ledger.join(0).await;
        let items = (0..1201_u32).map(|n| {
            let mut item = sighting(0, 1, callback(70));
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            item.record_id = tollgate_schema::ids::RecordId::from_bytes(id);
            item
        });
        member.apply(&ledger.store, items.collect()).await.unwrap();
        ledger.activate(TARIFF).await;
        assert!(ledger.store.tick(&member.claim, NOW).await.unwrap());
        assert_eq!(ledger.store.unrated().await.unwrap(), 701);
        member.tick(&ledger.store).await;
        assert_eq!(ledger.store.unrated().await.unwrap(), 0);
        let checks = ledger.consistent().await;
        assert_eq!((checks.records, checks.sources[0].entries), (1201, 3 * 1201));
        // Once through, it is not begun again.
        assert!(!ledger.store.tick(&member.claim, NOW).await.unwrap());
    }
}

//! Texts longer than any that the platform sends: they stop nothing, and what is kept of them is
//! short. Each test runs against SQLite and against a real PostgreSQL.

mod common;

use common::{Ledger, NOW, TARIFF, callback, delivered, key, on_both};
use prost::Message;
use tollgate_billing::CdrItem;
use tollgate_schema::v1;
use tollgate_schema::v1::RatingStatus::Rated;

/// A CDR, and the application of its path, as nobody but an attacker sends them.
fn of_long_texts() -> (v1::CallDetailRecord, String) {
    let mut cdr = callback(70);
    cdr.session_id = format!("+8613800000021\0{}", "s".repeat(9 * 1024));
    cdr.app_key = format!("key\0{}", "k".repeat(9 * 1024));
    cdr.a_leg.as_mut().unwrap().number = Some(format!("+86\0{}", "1".repeat(9 * 1024)));
    (cdr, format!("path\0{}", "店".repeat(3 * 1024)))
}

on_both! {
    async fn nuls_and_a_session_id_of_nine_kilobytes_stop_nothing(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let mut member = ledger.join(0).await;
        let (cdr, path) = of_long_texts();
        member.apply(&ledger.store, vec![delivered(1, 1, cdr.clone(), &path)]).await.unwrap();
        let found = ledger.store.entries_of_session(&cdr.session_id).await.unwrap().entries;
        assert_eq!(found.len(), 1);
        let message = &found[0].entry.message;
        for (kept, sent) in [
            (&message.session_id, &cdr.session_id),
            (&message.app_key, &cdr.app_key),
            (&message.application, &path),
        ] {
            assert!(kept[..200] == sent[..200] && kept.len() <= 1024, "{}", kept.len());
        }
        let shown = ledger.store.entries_of_session(&message.session_id).await.unwrap().entries;
        assert_eq!(shown, found);
        for other in ["+8613800000021", &cdr.session_id[1..], &cdr.session_id[..9000]] {
            assert!(ledger.store.entries_of_session(other).await.unwrap().entries.is_empty());
        }
        ledger.consistent().await;
    }

    /// However long the texts that a sender chose, what stands under a record stays small: a batch
    /// that repeats many records loads all of it.
    async fn what_is_loaded_for_a_repeat_is_short_whatever_was_sent(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let mut member = ledger.join(0).await;
        let long = || "t".repeat(1 << 20);
        let leg = |leg: Option<v1::Leg>| {
            leg.map(|leg| v1::Leg { number: Some(long()), number_shown: Some(long()), ..leg })
        };
        let cdr = callback(70);
        let cdr = v1::CallDetailRecord {
            session_id: long(),
            app_key: long(),
            service_type_text: Some(long()),
            a_leg: leg(cdr.a_leg),
            b_leg: leg(cdr.b_leg),
            business_number: Some(long()),
            dialled_number: Some(long()),
            ..cdr
        };
        member.apply(&ledger.store, vec![delivered(1, 1, cdr, &long())]).await.unwrap();
        assert_eq!(ledger.story(1).await, [("charge", 1, Rated, 540_000)]);
        for stored in ["billing_digests", "billing_ledger", "tollgate_outbox"] {
            let bytes = ledger.longest(stored).await;
            assert!(bytes < 8 * 1024, "{stored}: {bytes}");
        }
    }

    async fn what_an_earlier_version_kept_whole_is_found_and_charged_once(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let mut member = ledger.join(0).await;
        let (cdr, path) = of_long_texts();
        let item = || delivered(1, 1, cdr.clone(), &path);
        member.apply(&ledger.store, vec![item()]).await.unwrap();
        let mut message = ledger.entries(1).await.remove(0).entry.message;
        message.session_id.clone_from(&cdr.session_id);
        message.app_key.clone_from(&cdr.app_key);
        message.application.clone_from(&path);
        let of_path = key("application", &path);
        ledger
            .rewrite(
                "UPDATE billing_digests SET content = $1, application = $2",
                &[&cdr.encode_to_vec(), path.as_bytes()],
            )
            .await;
        ledger
            .rewrite(
                "UPDATE billing_ledger
                 SET message = $1, session_key = $2, application_key = $3, application = $4",
                &[
                    &message.encode_to_vec(),
                    &key("session", &cdr.session_id),
                    &of_path,
                    path.as_bytes(),
                ],
            )
            .await;
        ledger
            .rewrite(
                "UPDATE billing_aggregates SET application_key = $1, application = $2",
                &[&of_path, path.as_bytes()],
            )
            .await;

        // Replayed, seen later and earlier, rated again: it stays as it is.
        for after_ms in [0, 1000, -1000] {
            let received_at_ms = NOW + after_ms;
            let again = CdrItem { received_at_ms, ..item() };
            member.apply(&ledger.store, vec![again]).await.unwrap();
        }
        ledger.store.rerate(0, i64::MAX, NOW).await.unwrap();
        member.tick(&ledger.store).await;
        assert_eq!(ledger.story(1).await, [("charge", 1, Rated, 540_000)]);
        let found = ledger.store.entries_of_session(&cdr.session_id).await.unwrap().entries;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].entry.message, message);

        let longer = v1::CallDetailRecord { a_leg: callback(130).a_leg, ..cdr.clone() };
        let mut revision = delivered(1, 2, longer, &path);
        revision.received_at_ms += 1000;
        member.apply(&ledger.store, vec![revision]).await.unwrap();
        assert_eq!(ledger.net(1).await.0, 720_000);
        let found = ledger.store.entries_of_session(&cdr.session_id).await.unwrap().entries;
        assert_eq!(found.len(), 3);
        ledger.consistent().await;
    }
}

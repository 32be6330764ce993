//! Sums of usage as the store gives them. Each test runs against SQLite and against a real
//! PostgreSQL.

mod common;

use common::{Ledger, NOW, TARIFF, callback, key, on_both, sighting};
use tollgate_billing::store::{Groups, Span, UsageRow};
use tollgate_billing::{BillingError, CdrItem};
use tollgate_schema::ids::RecordId;
use tollgate_schema::v1;

const BY_DAY: Groups =
    Groups { span: Span::Day, by_application: false, by_service: false, by_status: false };
const BY_APPLICATION: Groups = Groups { by_application: true, ..BY_DAY };

async fn usage(ledger: &Ledger, groups: Groups) -> Result<Vec<UsageRow>, BillingError> {
    ledger.store.usage(groups, NOW - 24 * 3_600_000, NOW + 1).await
}

/// A call of this application.
fn of(number: u32, app_key: &str, cdr: v1::CallDetailRecord) -> CdrItem {
    let cdr = v1::CallDetailRecord { app_key: app_key.to_owned(), ..cdr };
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    CdrItem { record_id: RecordId::from_bytes(id), ..sighting(0, 1, cdr) }
}

on_both! {
    async fn rows_are_told_apart_by_what_is_asked_for_and_by_nothing_else(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let mut member = ledger.join(0).await;
        let playback = v1::CallDetailRecord {
            service_type: v1::ServiceType::Playback.into(),
            ..callback(70)
        };
        let items = vec![
            of(1, "key1", callback(70)),
            of(2, "key2", callback(70)),
            of(3, "key1", playback),
            of(4, "key1", callback(25 * 3600)),
        ];
        member.apply(&ledger.store, items).await.unwrap();

        // What is not charged has no currency, and so a row of its own.
        let attempts = async |groups| -> Vec<i64> {
            let rows = usage(&ledger, groups).await.unwrap();
            let mut attempts: Vec<_> = rows.iter().map(|row| row.measures.attempts).collect();
            attempts.sort_unstable();
            attempts
        };
        assert_eq!(attempts(BY_DAY).await, [1, 3]);
        assert_eq!(attempts(Groups { span: Span::Month, ..BY_DAY }).await, [1, 3]);
        assert_eq!(attempts(Groups { by_status: true, ..BY_DAY }).await, [1, 3]);
        assert_eq!(attempts(Groups { by_service: true, ..BY_DAY }).await, [1, 1, 2]);
        assert_eq!(attempts(BY_APPLICATION).await, [1, 1, 2]);
        let applications: Vec<_> =
            usage(&ledger, BY_DAY).await.unwrap().into_iter().map(|row| row.application).collect();
        assert_eq!(applications, ["", ""]);
    }

    /// Where no application is configured its name is the sender's own text: as many as he likes.
    async fn an_answer_too_long_is_refused_and_a_shorter_one_is_given(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let mut member = ledger.join(0).await;
        for batch in 0..4 {
            let numbers = batch * 5_000..(batch + 1) * 5_000;
            let items = numbers.map(|number| of(number, &number.to_string(), callback(70))).collect();
            member.apply(&ledger.store, items).await.unwrap();
        }
        assert_eq!(usage(&ledger, BY_APPLICATION).await.unwrap().len(), 20_000);

        member.apply(&ledger.store, vec![of(20_000, "one too many", callback(70))]).await.unwrap();
        let refused = usage(&ledger, BY_APPLICATION).await.unwrap_err();
        assert!(matches!(&refused, BillingError::InvalidQuery { what, .. }
            if what == "an answer of 20001 rows is too long"), "{refused}");
        let rows = usage(&ledger, BY_DAY).await.unwrap();
        assert_eq!((rows.len(), rows[0].measures.attempts), (1, 20_001));
    }

    /// An earlier version kept names of applications whole.
    async fn an_answer_of_long_names_is_refused_too(ledger: Ledger) {
        let mut member = ledger.join(0).await;
        let items = (0..9).map(|number| of(number, &number.to_string(), callback(70))).collect();
        member.apply(&ledger.store, items).await.unwrap();
        for number in 0..9 {
            let (name, long) = (number.to_string(), number.to_string().repeat(1 << 20));
            ledger
                .rewrite(
                    "UPDATE billing_aggregates SET application = $1 WHERE application_key = $2",
                    &[long.as_bytes(), &key("application", &name)],
                )
                .await;
        }
        let refused = usage(&ledger, BY_APPLICATION).await.unwrap_err();
        assert!(refused.to_string().contains("too long"), "{refused}");
        assert_eq!(usage(&ledger, BY_DAY).await.unwrap().len(), 1);
    }
}

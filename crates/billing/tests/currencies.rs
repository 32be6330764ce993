//! Tariffs in more than one currency. Each test runs against SQLite and against a real PostgreSQL.

mod common;

use common::{Ledger, NOW, TARIFF, callback, get, on_both, sighting};

/// Kind, currency and amount of a record's entries.
async fn story(ledger: &Ledger, record: u8) -> Vec<String> {
    let entries = ledger.entries(record).await.into_iter().map(|found| found.entry);
    let told = entries.map(|it| {
        format!("{} {} {}", it.kind.name(), it.message.currency, it.message.amount_micros)
    });
    told.collect()
}

/// Currency, attempts and amount of the rows of usage, and of its totals.
async fn usage(ledger: &Ledger) -> [Vec<String>; 2] {
    let day = "from=2026-11-23T00:00:00Z&to=2026-11-24T00:00:00Z";
    let (status, body) = get(ledger, &format!("/v1/usage?{day}")).await;
    assert_eq!(status, 200, "{body}");
    ["rows", "total"].map(|part| {
        let rows = body[part].as_array().unwrap().iter();
        let told = rows.map(|row| {
            let currency = row["currency"].as_str().unwrap();
            format!("{currency} {} {}", row["attempts"], row["amount_micros"])
        });
        told.collect()
    })
}

on_both! {
    /// I8: the same figures in another currency are another charge.
    async fn amounts_of_different_currencies_are_never_added(ledger: Ledger) {
        ledger.activate(TARIFF).await;
        let mut member = ledger.join(0).await;
        member.apply(&ledger.store, vec![sighting(1, 1, callback(70))]).await.unwrap();
        ledger.activate(&TARIFF.replace("CNY", "USD")).await;
        member.apply(&ledger.store, vec![sighting(2, 2, callback(130))]).await.unwrap();
        assert_eq!(story(&ledger, 1).await, ["charge CNY 540000"]);
        assert_eq!(story(&ledger, 2).await, ["charge USD 900000"]);
        let [rows, total] = usage(&ledger).await;
        assert_eq!(rows, ["CNY 1 540000", "USD 1 900000"]);
        assert_eq!(total, rows);
        ledger.consistent().await;

        ledger.store.rerate(0, i64::MAX, NOW).await.unwrap();
        member.tick(&ledger.store).await;
        let expected = ["charge CNY 540000", "reversal CNY -540000", "charge USD 540000"];
        assert_eq!(story(&ledger, 1).await, expected);
        assert_eq!(story(&ledger, 2).await, ["charge USD 900000"]);
        let [rows, total] = usage(&ledger).await;
        assert_eq!(rows, ["USD 2 1440000"]);
        assert_eq!(total, rows);
        ledger.consistent().await;
    }
}

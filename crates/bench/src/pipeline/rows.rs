//! Which rows a consumer leaves behind, read so that those of one transaction lie together.

use crate::service::Consumer;

/// Rows of one table.
pub struct Rows {
    pub table: &'static str,
    /// Reads them in PostgreSQL.
    pub postgres: &'static str,
    /// Reads them in SQLite.
    pub sqlite: &'static str,
}

/// What a row of the outbox carries beside key and value: CloudEvents headers, as many bytes as a
/// rated CDR has.
macro_rules! headers {
    () => {
        "206"
    };
}

/// Ledger, identity and outbox. Rows of the outbox are gone once they are published; they are made
/// anew from the ledger, which keeps the message.
const BILLING: &[Rows] = &[
    Rows {
        table: "billing_records",
        postgres: "SELECT r.* FROM billing_records r JOIN billing_ledger l USING (number)
                   ORDER BY l.source, l.position",
        sqlite: "SELECT r.* FROM billing_records r JOIN billing_ledger l USING (number)
                 ORDER BY l.source, l.position",
    },
    Rows {
        table: "billing_digests",
        postgres: "SELECT d.* FROM billing_digests d JOIN billing_ledger l USING (number)
                   ORDER BY l.source, l.position",
        sqlite: "SELECT d.* FROM billing_digests d JOIN billing_ledger l USING (number)
                 ORDER BY l.source, l.position",
    },
    Rows {
        table: "billing_ledger",
        postgres: "SELECT * FROM billing_ledger ORDER BY source, position",
        sqlite: "SELECT * FROM billing_ledger ORDER BY source, position",
    },
    Rows {
        table: "tollgate_outbox",
        postgres: concat!(
            "SELECT source, position, 'rated-cdrs'::text,
                    convert_to(encode(record_id, 'hex'), 'UTF8'), message,
                    decode(repeat('5a', ",
            headers!(),
            "), 'hex')
             FROM billing_ledger ORDER BY source, position"
        ),
        sqlite: concat!(
            "SELECT source, position, 'rated-cdrs', CAST(hex(record_id) AS BLOB), message,
                    randomblob(",
            headers!(),
            ") FROM billing_ledger ORDER BY source, position"
        ),
    },
];

/// Calls, legs, numbers, and what is to be published of each number.
const USER_STATE: &[Rows] = &[
    Rows {
        table: "state_call",
        postgres: "SELECT * FROM state_call ORDER BY touched_ms",
        sqlite: "SELECT * FROM state_call ORDER BY touched_ms",
    },
    Rows {
        table: "state_leg",
        postgres: "SELECT g.* FROM state_leg g JOIN state_call c USING (call_serial)
                   ORDER BY c.touched_ms",
        sqlite: "SELECT g.* FROM state_leg g JOIN state_call c USING (call_serial)
                 ORDER BY c.touched_ms",
    },
    Rows {
        table: "state_number",
        postgres: "SELECT * FROM state_number ORDER BY as_of_ms",
        sqlite: "SELECT * FROM state_number ORDER BY as_of_ms",
    },
    Rows {
        table: "state_changed",
        postgres: "SELECT number_key, shard, version, row_number() OVER (ORDER BY as_of_ms),
                          number, as_of_ms, next_expiry_ms IS NOT NULL
                   FROM state_number",
        sqlite: "SELECT row_number() OVER (ORDER BY as_of_ms), number_key, shard, version, number,
                        as_of_ms, next_expiry_ms IS NOT NULL
                 FROM state_number",
    },
];

pub fn rows_of(consumer: Consumer) -> &'static [Rows] {
    match consumer {
        Consumer::Billing => BILLING,
        Consumer::UserState => USER_STATE,
    }
}

/// The part of so many rows that is written in transaction `index` of `count`.
pub fn part(rows: usize, index: usize, count: usize) -> std::ops::Range<usize> {
    rows * index / count..rows * (index + 1) / count
}

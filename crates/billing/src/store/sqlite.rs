//! Writing to SQLite: one statement per row, many at a time, within the one immediate transaction.

use async_trait::async_trait;
use tollgate_schema::ids::RecordId;
use tollgate_store::sql::{Sql, Value};
use tollgate_store::sqlite::{Bound, each};
use tollgate_store::{source_id, sqlite};
use tollgate_stream::{Outgoing, StoreError};

use crate::applications::service_name;
use crate::digest::Digest;
use crate::entry::Entry;
use crate::keys;
use crate::ledger::Account;
use crate::plan::{Need, Writes};
use crate::store::tables::{
    self, ENTRY_COLUMNS, Outbox, Serials, Share, Tables, digest_columns, entry_columns,
};

type Tx = sqlite::Tx;

#[async_trait]
impl Tables for Tx {
    async fn hold_tariffs(&mut self) -> Result<(), StoreError> {
        // BEGIN IMMEDIATE has locked the whole file.
        Ok(())
    }

    async fn stop_rating(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn open(
        &mut self,
        accounts: &[Account],
        partitions: &[i32],
    ) -> Result<Serials, StoreError> {
        let accounts: Vec<_> = accounts.iter().zip(partitions).collect();
        let opened = each(
            self,
            "INSERT INTO billing_records
                 (record_id, revision, event_id, status, billed_at_ms, partition)
             VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (record_id) DO NOTHING
             RETURNING record_id, number",
            &accounts,
            |query, (Account { record_id, charge, .. }, partition)| {
                query
                    .bind(record_id.as_bytes().as_slice())
                    .bind(i64::from(charge.revision))
                    .bind(charge.event_id.as_bytes().as_slice())
                    .bind(charge.bucket.status)
                    .bind(charge.billed_at_ms())
                    .bind(i64::from(**partition))
            },
        )
        .await?;
        opened.iter().map(|row| Ok((RecordId::from_bytes(row.key(0)?), row.int(1)?))).collect()
    }

    async fn load(
        &mut self,
        needs: &[Need],
        serials: &mut Serials,
    ) -> Result<Vec<Account>, StoreError> {
        let (mut charges, mut digests) = (Vec::new(), Vec::new());
        for need in needs {
            let id = Value::from(need.record_id.as_bytes().as_slice());
            let charge = self
                .row(
                    concat!(
                        "SELECT ",
                        entry_columns!(),
                        ", r.number
                         FROM billing_records AS r JOIN billing_ledger AS l
                             ON l.number = r.number AND l.revision = r.revision AND l.kind = 1
                         WHERE r.record_id = $1"
                    ),
                    vec![id],
                )
                .await?;
            let Some(charge) = charge else { continue };
            charges.push(tables::entry(&charge)?);
            let serial = charge.int(ENTRY_COLUMNS)?;
            serials.insert(need.record_id, serial);
            // One more than are at hand: the greatest of the others is among them.
            let rows = self
                .rows(
                    concat!(
                        "SELECT ",
                        digest_columns!(),
                        " FROM billing_digests AS d JOIN billing_records AS r ON r.number = d.number
                         JOIN tollgate_fence AS f ON f.source = d.source
                         WHERE d.number = $1
                         ORDER BY d.authenticity DESC, d.first_received_ms DESC, d.event_id DESC
                         LIMIT $2"
                    ),
                    vec![serial.into(), (need.event_ids.len() as i64 + 1).into()],
                )
                .await?;
            let mut found: Vec<_> = rows.iter().map(tables::digest).collect::<Result<_, _>>()?;
            for event_id in &need.event_ids {
                if found.iter().any(|(_, digest)| digest.event_id == *event_id) {
                    continue;
                }
                let row = self
                    .row(
                        concat!(
                            "SELECT ",
                            digest_columns!(),
                            " FROM billing_digests AS d
                             JOIN billing_records AS r ON r.number = d.number
                             JOIN tollgate_fence AS f ON f.source = d.source
                             WHERE d.number = $1 AND d.event_id = $2"
                        ),
                        vec![serial.into(), event_id.as_bytes().as_slice().into()],
                    )
                    .await?;
                found.extend(row.as_ref().map(tables::digest).transpose()?);
            }
            digests.append(&mut found);
        }
        Ok(tables::accounts(charges, digests))
    }

    async fn write(
        &mut self,
        now_ms: i64,
        shares: &[Share<'_>],
        outboxes: &[Outbox<'_>],
        serials: &Serials,
    ) -> Result<(), StoreError> {
        for ((claim, writes), (_, outbox)) in shares.iter().zip(outboxes) {
            let source = source_id(&claim.source);
            write_digests(self, writes, serials).await?;
            write_replaced(self, &writes.replaced).await?;
            if !writes.entries.is_empty() {
                let placed = Placed { source, now_ms, serials };
                write_entries(self, &placed, &writes.entries, outbox).await?;
                write_aggregates(self, source, writes).await?;
            }
        }
        Ok(())
    }
}

/// Where and when entries are written.
struct Placed<'a> {
    source: [u8; 16],
    now_ms: i64,
    serials: &'a Serials,
}

async fn write_replaced(tx: &mut Tx, charges: &[Entry]) -> Result<(), StoreError> {
    for charge in charges {
        tx.execute(
            "UPDATE billing_records
             SET revision = $2, event_id = $3, status = $4, billed_at_ms = $5
             WHERE record_id = $1",
            vec![
                charge.record_id.as_bytes().as_slice().into(),
                i64::from(charge.revision).into(),
                charge.event_id.as_bytes().as_slice().into(),
                charge.bucket.status.into(),
                charge.billed_at_ms().into(),
            ],
        )
        .await?;
    }
    Ok(())
}

async fn write_digests(tx: &mut Tx, writes: &Writes, serials: &Serials) -> Result<(), StoreError> {
    let with_serial = |(record_id, digest)| Ok((tables::serial(serials, record_id)?, digest));
    let digests = writes.opened.iter().chain(&writes.digests).map(|(id, digest)| (id, digest));
    let digests: Vec<(i64, &Digest)> =
        digests.map(with_serial).collect::<Result<_, StoreError>>()?;
    each(
        tx,
        "INSERT INTO billing_digests
             (number, event_id, authenticity, first_received_ms, application,
              application_at_ms, source, source_offset, content)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (number, event_id) DO UPDATE SET
             authenticity = excluded.authenticity,
             first_received_ms = excluded.first_received_ms,
             application = excluded.application,
             application_at_ms = excluded.application_at_ms",
        &digests,
        |query, (serial, digest)| {
            query
                .bind(*serial)
                .bind(digest.event_id.as_bytes().as_slice())
                .bind(digest.authenticity as i64)
                .bind(digest.first_received_ms)
                .bind(digest.application.as_bytes())
                .bind(digest.application_at_ms)
                .bind(digest.read_at.place.source.as_slice())
                .bind(digest.read_at.offset)
                .bind(digest.content.encode())
        },
    )
    .await?;
    Ok(())
}

async fn write_entries(
    tx: &mut Tx,
    Placed { source, now_ms, serials }: &Placed<'_>,
    entries: &[Entry],
    outbox: &[Outgoing],
) -> Result<(), StoreError> {
    let count = entries.len() as i64;
    let last = tx
        .row(
            "INSERT INTO billing_sources AS own (source, entries) VALUES ($1, $2)
             ON CONFLICT (source) DO UPDATE SET entries = own.entries + excluded.entries
             RETURNING entries",
            vec![(*source).into(), count.into()],
        )
        .await?
        .map_or(Ok(count), |row| row.int(0))?;
    let mut placed: Vec<(i64, i64, &Entry, &Outgoing)> = Vec::with_capacity(entries.len());
    for (position, (entry, message)) in (last - count + 1..).zip(entries.iter().zip(outbox)) {
        placed.push((tables::serial(serials, &entry.record_id)?, position, entry, message));
    }
    each(
        tx,
        "INSERT INTO billing_ledger
             (number, record_id, revision, kind, event_id, source, position, written_ms,
              billed_at_ms, hour_ms, day, month, currency, application_key, application,
              service, status, attempts, answered, seconds, talk_seconds, billed_minutes,
              amount_micros, pdd_ms, pdd_samples, session_key, message)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
                 ?)",
        &placed,
        |query, (serial, position, entry, message)| {
            let bucket = &entry.bucket;
            let query = query
                .bind(*serial)
                .bind(entry.record_id.as_bytes().as_slice())
                .bind(i64::from(entry.revision))
                .bind(entry.kind as i64)
                .bind(entry.event_id.as_bytes().as_slice())
                .bind(source.as_slice())
                .bind(*position)
                .bind(*now_ms)
                .bind(entry.billed_at_ms())
                .bind(bucket.hour_ms)
                .bind(bucket.day.as_str())
                .bind(bucket.month.as_str())
                .bind(bucket.currency.as_str())
                .bind(keys::application_key(&bucket.application).as_slice())
                .bind(bucket.application.as_bytes())
                .bind(service_name(bucket.service))
                .bind(bucket.status);
            let query = entry.measures.columns().into_iter().fold(query, Bound::bind);
            query
                .bind(keys::session_key(&entry.message.session_id).as_slice())
                .bind(message.value.as_deref())
        },
    )
    .await?;
    Ok(())
}

async fn write_aggregates(
    tx: &mut Tx,
    source: [u8; 16],
    writes: &Writes,
) -> Result<(), StoreError> {
    for (bucket, sum) in writes.aggregates() {
        let mut values: Vec<Value> = vec![
            bucket.hour_ms.into(),
            source.into(),
            bucket.currency.as_str().into(),
            keys::application_key(&bucket.application).into(),
            service_name(bucket.service).into(),
            bucket.status.into(),
            bucket.application.as_bytes().into(),
            bucket.day.as_str().into(),
            bucket.month.as_str().into(),
        ];
        values.extend(sum.columns().map(Value::from));
        tx.execute(
            "INSERT INTO billing_aggregates AS own
                 (hour_ms, source, currency, application_key, service, status, application, day,
                  month, attempts, answered, seconds, talk_seconds, billed_minutes,
                  amount_micros, pdd_ms, pdd_samples)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
             ON CONFLICT (hour_ms, source, currency, application_key, service, status)
             DO UPDATE SET
                 attempts = own.attempts + excluded.attempts,
                 answered = own.answered + excluded.answered,
                 seconds = own.seconds + excluded.seconds,
                 talk_seconds = own.talk_seconds + excluded.talk_seconds,
                 billed_minutes = own.billed_minutes + excluded.billed_minutes,
                 amount_micros = own.amount_micros + excluded.amount_micros,
                 pdd_ms = own.pdd_ms + excluded.pdd_ms,
                 pdd_samples = own.pdd_samples + excluded.pdd_samples",
            values,
        )
        .await?;
    }
    Ok(())
}

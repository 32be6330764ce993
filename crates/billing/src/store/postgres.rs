//! Writing to PostgreSQL: a constant number of statements per batch, whatever its size.

use std::collections::HashMap;

use async_trait::async_trait;
use tollgate_schema::ids::RecordId;
use tollgate_store::new_rows::{NewRows, bigint, bytea, text};
use tollgate_store::sql::{Row, Sql, misfit};
use tollgate_store::{classify, postgres, source_id};
use tollgate_stream::{Outgoing, StoreError};

use crate::applications::service_name;
use crate::digest::Digest;
use crate::entry::{Bucket, Entry, Measures};
use crate::keys;
use crate::ledger::Account;
use crate::plan::{Need, Writes};
use crate::store::tables::{self, Outbox, Serials, Share, Tables, digest_columns, entry_columns};

type Tx = postgres::Tx;

#[async_trait]
impl Tables for Tx {
    async fn hold_tariffs(&mut self) -> Result<(), StoreError> {
        self.execute("LOCK TABLE billing_activations IN ROW SHARE MODE", vec![]).await?;
        Ok(())
    }

    async fn stop_rating(&mut self) -> Result<(), StoreError> {
        self.execute("LOCK TABLE billing_activations IN EXCLUSIVE MODE", vec![]).await?;
        Ok(())
    }

    async fn open(
        &mut self,
        accounts: &[Account],
        partitions: &[i32],
    ) -> Result<Serials, StoreError> {
        if accounts.is_empty() {
            return Ok(Serials::new());
        }
        let column = |read: fn(&Entry) -> i64| -> Vec<i64> {
            accounts.iter().map(|account| read(&account.charge)).collect()
        };
        let inserted: Vec<(Vec<u8>, i64)> = sqlx::query_as(
            "INSERT INTO billing_records
                 (record_id, revision, event_id, status, billed_at_ms, partition)
             SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[],
                                  $5::bigint[], $6::bigint[])
             ON CONFLICT (record_id) DO NOTHING
             RETURNING record_id, number",
        )
        .bind(bytes(accounts, |account| account.record_id.as_bytes()))
        .bind(column(|charge| charge.revision.into()))
        .bind(bytes(accounts, |account| account.charge.event_id.as_bytes()))
        .bind(column(|charge| charge.bucket.status))
        .bind(column(Entry::billed_at_ms))
        .bind(partitions.iter().map(|it| i64::from(*it)).collect::<Vec<_>>())
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        inserted.iter().map(|(id, serial)| Ok((id_of(id)?, *serial))).collect()
    }

    async fn load(
        &mut self,
        needs: &[Need],
        serials: &mut Serials,
    ) -> Result<Vec<Account>, StoreError> {
        if needs.is_empty() {
            return Ok(Vec::new());
        }
        // Locked in the order of their ids, in a statement of its own: what is read next is what
        // the last holder committed.
        let ids = bytes(needs, |need| need.record_id.as_bytes());
        let locked: Vec<(Vec<u8>, i64)> = sqlx::query_as(
            "SELECT record_id, number FROM billing_records WHERE record_id = ANY($1)
             ORDER BY record_id FOR NO KEY UPDATE",
        )
        .bind(&ids)
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        for (id, serial) in &locked {
            serials.insert(id_of(id)?, *serial);
        }
        let serial_of = |need: &Need| serials.get(&need.record_id).copied();
        let charges = sqlx::query(concat!(
            "SELECT ",
            entry_columns!(),
            " FROM billing_records AS r JOIN billing_ledger AS l
                 ON l.number = r.number AND l.revision = r.revision AND l.kind = 1
             WHERE r.record_id = ANY($1)"
        ))
        .bind(&ids)
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        // One more than are at hand: the greatest of the others is among them. However many
        // contents a sender makes up for one record, what is loaded stays bounded by the batch.
        let limits: Vec<i64> = needs.iter().map(|need| need.event_ids.len() as i64 + 1).collect();
        let seen = || needs.iter().flat_map(|need| need.event_ids.iter().map(move |id| (need, id)));
        let digests = sqlx::query(concat!(
            "SELECT ",
            digest_columns!(),
            " FROM (
                 SELECT top.* FROM unnest($1::bigint[], $2::bigint[]) AS need (number, most)
                 CROSS JOIN LATERAL (
                     SELECT * FROM billing_digests AS own WHERE own.number = need.number
                     ORDER BY own.authenticity DESC, own.first_received_ms DESC, own.event_id DESC
                     LIMIT need.most) AS top
                 UNION ALL
                 SELECT own.* FROM unnest($3::bigint[], $4::bytea[]) AS seen (number, event_id)
                 JOIN billing_digests AS own
                     ON own.number = seen.number AND own.event_id = seen.event_id
             ) AS d JOIN unnest($5::bigint[], $6::bytea[]) AS r (number, record_id)
                 ON r.number = d.number
             JOIN tollgate_fence AS f ON f.source = d.source"
        ))
        .bind(needs.iter().map(serial_of).collect::<Vec<_>>())
        .bind(limits)
        .bind(seen().map(|(need, _)| serial_of(need)).collect::<Vec<_>>())
        .bind(seen().map(|(_, id)| id.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(needs.iter().map(serial_of).collect::<Vec<_>>())
        .bind(&ids)
        .fetch_all(&mut **self)
        .await
        .map_err(classify)?;
        Ok(tables::accounts(
            Row::all(charges).iter().map(tables::entry).collect::<Result<_, _>>()?,
            Row::all(digests).iter().map(tables::digest).collect::<Result<_, _>>()?,
        ))
    }

    async fn write(
        &mut self,
        now_ms: i64,
        shares: &[Share<'_>],
        outboxes: &[Outbox<'_>],
        serials: &Serials,
    ) -> Result<(), StoreError> {
        open_digests(self, shares, serials).await?;
        let digests: Vec<_> = shares.iter().flat_map(|(_, writes)| &writes.digests).collect();
        write_digests(self, &digests, serials).await?;
        let replaced: Vec<_> = shares.iter().flat_map(|(_, writes)| &writes.replaced).collect();
        write_replaced(self, &replaced).await?;
        let entered: Vec<_> = shares
            .iter()
            .zip(outboxes)
            .filter(|((_, writes), _)| !writes.entries.is_empty())
            .map(|((claim, writes), (_, outbox))| Entered {
                source: source_id(&claim.source),
                writes,
                outbox,
            })
            .collect();
        if !entered.is_empty() {
            write_entries(self, now_ms, &entered, serials).await?;
            write_aggregates(self, &entered).await?;
        }
        Ok(())
    }
}

/// A partition that has entries to write.
struct Entered<'a> {
    source: [u8; 16],
    writes: &'a Writes,
    outbox: &'a [Outgoing],
}

async fn open_digests(
    tx: &mut Tx,
    shares: &[Share<'_>],
    serials: &Serials,
) -> Result<(), StoreError> {
    let columns = [
        bigint("number"),
        bytea("event_id"),
        bigint("authenticity"),
        bigint("first_received_ms"),
        bytea("application"),
        bigint("application_at_ms"),
        bytea("source"),
        bigint("source_offset"),
        bytea("content"),
    ];
    let mut rows = NewRows::of("billing_digests", &columns);
    for (record_id, digest) in shares.iter().flat_map(|(_, writes)| &writes.opened) {
        rows.row()
            .field(tables::serial(serials, record_id)?)
            .field(digest.event_id.as_bytes())
            .field(digest.authenticity as i64)
            .field(digest.first_received_ms)
            .field(digest.application.as_bytes())
            .field(digest.application_at_ms)
            .field(&digest.read_at.place.source)
            .field(digest.read_at.offset)
            .field(&digest.content.encode());
    }
    rows.write(tx).await
}

async fn write_digests(
    tx: &mut Tx,
    rows: &[&(RecordId, Digest)],
    serials: &Serials,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let ints = |read: fn(&Digest) -> i64| -> Vec<i64> {
        rows.iter().map(|(_, digest)| read(digest)).collect()
    };
    let of_records: Vec<i64> =
        rows.iter().map(|(id, _)| tables::serial(serials, id)).collect::<Result<_, _>>()?;
    sqlx::query(
        "INSERT INTO billing_digests
             (number, event_id, authenticity, first_received_ms, application,
              application_at_ms, source, source_offset, content)
         SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bytea[],
                              $6::bigint[], $7::bytea[], $8::bigint[], $9::bytea[])
         ON CONFLICT (number, event_id) DO UPDATE SET
             authenticity = excluded.authenticity,
             first_received_ms = excluded.first_received_ms,
             application = excluded.application,
             application_at_ms = excluded.application_at_ms",
    )
    .bind(of_records)
    .bind(bytes(rows, |(_, digest)| digest.event_id.as_bytes()))
    .bind(ints(|digest| digest.authenticity as i64))
    .bind(ints(|digest| digest.first_received_ms))
    .bind(bytes(rows, |(_, digest)| digest.application.as_bytes()))
    .bind(ints(|digest| digest.application_at_ms))
    .bind(bytes(rows, |(_, digest)| &digest.read_at.place.source))
    .bind(ints(|digest| digest.read_at.offset))
    .bind(rows.iter().map(|(_, digest)| digest.content.encode()).collect::<Vec<_>>())
    .execute(&mut **tx)
    .await
    .map_err(classify)?;
    Ok(())
}

async fn write_replaced(tx: &mut Tx, charges: &[&Entry]) -> Result<(), StoreError> {
    if charges.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE billing_records AS own
         SET revision = r.revision, event_id = r.event_id, status = r.status,
             billed_at_ms = r.billed_at_ms
         FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[])
              AS r (record_id, revision, event_id, status, billed_at_ms)
         WHERE own.record_id = r.record_id",
    )
    .bind(bytes(charges, |charge| charge.record_id.as_bytes()))
    .bind(ints(charges, |charge| charge.revision.into()))
    .bind(bytes(charges, |charge| charge.event_id.as_bytes()))
    .bind(ints(charges, |charge| charge.bucket.status))
    .bind(ints(charges, |charge| charge.billed_at_ms()))
    .execute(&mut **tx)
    .await
    .map_err(classify)?;
    Ok(())
}

async fn write_entries(
    tx: &mut Tx,
    now_ms: i64,
    entered: &[Entered<'_>],
    serials: &Serials,
) -> Result<(), StoreError> {
    let last: Vec<(Vec<u8>, i64)> = sqlx::query_as(
        "INSERT INTO billing_sources AS own (source, entries)
         SELECT * FROM unnest($1::bytea[], $2::bigint[])
         ON CONFLICT (source) DO UPDATE SET entries = own.entries + excluded.entries
         RETURNING source, entries",
    )
    .bind(bytes(entered, |it| &it.source))
    .bind(ints(entered, |it| it.writes.entries.len() as i64))
    .fetch_all(&mut **tx)
    .await
    .map_err(classify)?;
    let last: HashMap<Vec<u8>, i64> = last.into_iter().collect();
    let columns = [
        bigint("number"),
        bytea("record_id"),
        bigint("revision"),
        bigint("kind"),
        bytea("event_id"),
        bytea("source"),
        bigint("position"),
        bigint("written_ms"),
        bigint("billed_at_ms"),
        bigint("hour_ms"),
        text("day"),
        text("month"),
        text("currency"),
        bytea("application_key"),
        bytea("application"),
        text("service"),
        bigint("status"),
        bigint("attempts"),
        bigint("answered"),
        bigint("seconds"),
        bigint("talk_seconds"),
        bigint("billed_minutes"),
        bigint("amount_micros"),
        bigint("pdd_ms"),
        bigint("pdd_samples"),
        bytea("session_key"),
        bytea("message"),
    ];
    let mut rows = NewRows::of("billing_ledger", &columns);
    for Entered { source, writes, outbox } in entered {
        let count = writes.entries.len() as i64;
        let last = last.get(source.as_slice()).copied().unwrap_or(count);
        let entries = writes.entries.iter().zip(*outbox);
        for (position, (entry, message)) in (last - count + 1..).zip(entries) {
            let bucket = &entry.bucket;
            rows.row()
                .field(tables::serial(serials, &entry.record_id)?)
                .field(entry.record_id.as_bytes())
                .field(i64::from(entry.revision))
                .field(entry.kind as i64)
                .field(entry.event_id.as_bytes())
                .field(source)
                .field(position)
                .field(now_ms)
                .field(entry.billed_at_ms())
                .field(bucket.hour_ms)
                .field(&bucket.day)
                .field(&bucket.month)
                .field(&bucket.currency)
                .field(&keys::application_key(&bucket.application))
                .field(bucket.application.as_bytes())
                .field(service_name(bucket.service))
                .field(bucket.status);
            for measure in entry.measures.columns() {
                rows.field(measure);
            }
            rows.field(&keys::session_key(&entry.message.session_id))
                .field(message.value.as_deref());
        }
    }
    rows.write(tx).await
}

async fn write_aggregates(tx: &mut Tx, entered: &[Entered<'_>]) -> Result<(), StoreError> {
    let mut sums: Vec<(&[u8], &Bucket, Measures)> = Vec::new();
    for Entered { source, writes, .. } in entered {
        let of_source = writes.aggregates().into_iter();
        sums.extend(of_source.map(|(bucket, sum)| (source.as_slice(), bucket, sum)));
    }
    let measure = |column: usize| -> Vec<i64> { ints(&sums, |(_, _, sum)| sum.columns()[column]) };
    sqlx::query(
        "INSERT INTO billing_aggregates AS own
             (source, hour_ms, currency, application_key, service, status, application, day,
              month, attempts, answered, seconds, talk_seconds, billed_minutes, amount_micros,
              pdd_ms, pdd_samples)
         SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::text[], $4::bytea[], $5::text[],
                              $6::bigint[], $7::bytea[], $8::text[], $9::text[], $10::bigint[],
                              $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[],
                              $15::bigint[], $16::bigint[], $17::bigint[])
         ON CONFLICT (hour_ms, source, currency, application_key, service, status) DO UPDATE SET
             attempts = own.attempts + excluded.attempts,
             answered = own.answered + excluded.answered,
             seconds = own.seconds + excluded.seconds,
             talk_seconds = own.talk_seconds + excluded.talk_seconds,
             billed_minutes = own.billed_minutes + excluded.billed_minutes,
             amount_micros = own.amount_micros + excluded.amount_micros,
             pdd_ms = own.pdd_ms + excluded.pdd_ms,
             pdd_samples = own.pdd_samples + excluded.pdd_samples",
    )
    .bind(sums.iter().map(|(source, ..)| *source).collect::<Vec<_>>())
    .bind(ints(&sums, |(_, bucket, _)| bucket.hour_ms))
    .bind(texts(&sums, |(_, bucket, _)| &bucket.currency))
    .bind(
        sums.iter()
            .map(|(_, bucket, _)| keys::application_key(&bucket.application).to_vec())
            .collect::<Vec<_>>(),
    )
    .bind(texts(&sums, |(_, bucket, _)| service_name(bucket.service)))
    .bind(ints(&sums, |(_, bucket, _)| bucket.status))
    .bind(bytes(&sums, |(_, bucket, _)| bucket.application.as_bytes()))
    .bind(texts(&sums, |(_, bucket, _)| &bucket.day))
    .bind(texts(&sums, |(_, bucket, _)| &bucket.month))
    .bind(measure(0))
    .bind(measure(1))
    .bind(measure(2))
    .bind(measure(3))
    .bind(measure(4))
    .bind(measure(5))
    .bind(measure(6))
    .bind(measure(7))
    .execute(&mut **tx)
    .await
    .map_err(classify)?;
    Ok(())
}

fn bytes<T>(rows: &[T], read: impl Fn(&T) -> &[u8]) -> Vec<&[u8]> {
    rows.iter().map(read).collect()
}

fn texts<T>(rows: &[T], read: impl Fn(&T) -> &str) -> Vec<&str> {
    rows.iter().map(read).collect()
}

fn ints<T>(rows: &[T], read: impl Fn(&T) -> i64) -> Vec<i64> {
    rows.iter().map(read).collect()
}

fn id_of(bytes: &[u8]) -> Result<RecordId, StoreError> {
    RecordId::try_from(bytes).map_err(|_| misfit(0, "a record id"))
}

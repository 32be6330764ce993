//! What both dialects must do.

use bytes::Bytes;
use tollgate_store::sql::Value;
use tollgate_store::{Advance, Migration, Schema, Step};
use tollgate_stream::{Mark, Outgoing, Source, StoreError};

use crate::common::{DOMAIN, Fixture, Tx, claim, failure, mark, outgoing, source, step};

type Result = anyhow::Result<()>;

/// Runs everything, each part on partitions of its own.
pub async fn everything(fixture: &Fixture) -> Result {
    a_fence_raises_the_epoch_and_knows_where_to_go_on(fixture).await?;
    a_mark_of_any_form_is_kept(fixture).await?;
    a_wrong_from_is_fenced_and_changes_nothing(fixture).await?;
    a_stale_epoch_can_do_nothing(fixture).await?;
    several_partitions_go_on_together_or_not_at_all(fixture).await?;
    a_running_transaction_ends_before_the_takeover(fixture).await?;
    holders_that_fight_apply_every_offset_once(fixture).await?;
    the_outbox_keeps_order_and_content(fixture).await?;
    what_is_read_of_the_outbox_is_bounded_in_bytes(fixture).await?;
    a_rollback_takes_the_outbox_rows_with_it(fixture).await?;
    a_snapshot_does_not_move(fixture).await?;
    a_row_reads_the_same_whatever_it_comes_from(fixture).await?;
    a_violated_key_is_the_datas_fault_and_no_value_is_told(fixture).await?;
    a_missing_table_is_not_the_datas_fault(fixture).await?;
    schemas_are_made_once_and_strange_ones_refused(fixture).await
}

async fn a_fence_raises_the_epoch_and_knows_where_to_go_on(fixture: &Fixture) -> Result {
    let source = source(1);
    let first = fixture.database.fence(&source).await?;
    assert_eq!((first.epoch, first.next_offset, first.mark.clone()), (1, 0, None));
    fixture.apply(&claim(&source, &first), 0, &[]).await?;
    fixture.apply(&claim(&source, &first), 1, &[]).await?;
    let second = fixture.database.fence(&source).await?;
    assert_eq!((second.epoch, second.next_offset), (2, 2));
    assert_eq!(second.mark, Some(mark(1)));
    // Another cluster has other offsets.
    let elsewhere = Source { cluster_id: "other".to_owned(), ..source };
    assert_eq!(fixture.database.fence(&elsewhere).await?.next_offset, 0);
    clear(fixture).await
}

async fn a_mark_of_any_form_is_kept(fixture: &Fixture) -> Result {
    let source = source(2);
    let mut from = 0;
    for event_id in [String::new(), "\0'\"é".to_owned(), "long".repeat(5_000)] {
        let fence = fixture.database.fence(&source).await?;
        let mark = Mark { offset: from + 9, timestamp_ms: -1, event_id };
        let claim = claim(&source, &fence);
        let advance = Advance { claim: &claim, from, to: from + 10, mark: &mark };
        fixture.transaction(&Step::Advance(vec![advance])).await?.commit().await?;
        from += 10;
        assert_eq!(fixture.database.fence(&source).await?.mark, Some(mark));
    }
    Ok(())
}

async fn a_wrong_from_is_fenced_and_changes_nothing(fixture: &Fixture) -> Result {
    let source = source(3);
    let claim = claim(&source, &fixture.database.fence(&source).await?);
    fixture.apply(&claim, 0, &[]).await?;
    for wrong in [0, 2] {
        assert_eq!(failure(fixture.apply(&claim, wrong, &[]).await), StoreError::Fenced);
    }
    assert_eq!(fixture.results().await?, 1);
    fixture.apply(&claim, 1, &[]).await?;
    clear(fixture).await
}

async fn a_stale_epoch_can_do_nothing(fixture: &Fixture) -> Result {
    let source = source(4);
    let old = claim(&source, &fixture.database.fence(&source).await?);
    fixture.apply(&old, 0, &[outgoing("a")]).await?;
    let new = claim(&source, &fixture.database.fence(&source).await?);

    assert_eq!(failure(fixture.apply(&old, 1, &[]).await), StoreError::Fenced);
    assert_eq!(failure(fixture.transaction(&Step::Hold(&old)).await), StoreError::Fenced);
    assert_eq!(failure(fixture.database.delete_outbox(&old, 99).await), StoreError::Fenced);
    // Even inside a transaction of somebody who is entitled to one.
    let mut tx = fixture.transaction(&Step::Hold(&new)).await?;
    assert_eq!(failure(tx.append(&old, &[outgoing("b")]).await), StoreError::Fenced);
    drop(tx);

    assert_eq!(fixture.positions_in_outbox(&new).await?, [1]);
    fixture.apply(&new, 1, &[]).await?;
    clear(fixture).await
}

async fn several_partitions_go_on_together_or_not_at_all(fixture: &Fixture) -> Result {
    let sources = [source(20), source(21), source(22)];
    let mut claims = Vec::new();
    for source in &sources {
        claims.push(claim(source, &fixture.database.fence(source).await?));
    }
    let mark = mark(4);
    let all = |froms: [i64; 3]| {
        let of = |(claim, from)| Advance { claim, from, to: 5, mark: &mark };
        Step::Advance(claims.iter().zip(froms).map(of).collect())
    };
    for wrong in [[0, 0, 1], [7, 0, 0]] {
        assert_eq!(failure(fixture.transaction(&all(wrong)).await), StoreError::Fenced);
    }
    let mut tx = fixture.transaction(&all([0, 0, 0])).await?;
    for (claim, name) in claims.iter().zip(["one", "two", "three"]) {
        tx.append(claim, &[outgoing(name)]).await?;
    }
    tx.commit().await?;
    for claim in &claims {
        assert_eq!(fixture.positions_in_outbox(claim).await?, [1]);
    }

    // One of them is taken over: none can go on in its company, the others can without it.
    let taken = fixture.database.fence(&sources[1]).await?;
    assert_eq!((taken.next_offset, taken.mark), (5, Some(mark.clone())));
    assert_eq!(failure(fixture.transaction(&all([5, 5, 5])).await), StoreError::Fenced);
    let of = |claim| Advance { claim, from: 5, to: 6, mark: &mark };
    let others = Step::Advance(vec![of(&claims[2]), of(&claims[0])]);
    fixture.transaction(&others).await?.commit().await?;
    assert_eq!(fixture.database.fence(&sources[0]).await?.next_offset, 6);
    clear(fixture).await
}

async fn a_running_transaction_ends_before_the_takeover(fixture: &Fixture) -> Result {
    let source = source(5);
    let old = claim(&source, &fixture.database.fence(&source).await?);
    let mark = mark(0);
    let mut tx = fixture.transaction(&step(&old, 0, &mark)).await?;
    tx.insert(b"running", "x").await?;

    let other = fixture.another()?;
    let (commit, fence) = tokio::join!(
        // Polled first; by now it holds the row, and gives it up only by committing.
        async {
            tokio::task::yield_now().await;
            tx.commit().await
        },
        other.database.fence(&source)
    );
    commit?;
    let fence = fence?;
    assert_eq!((fence.epoch, fence.next_offset), (2, 1), "the takeover saw what was committed");
    assert_eq!(failure(fixture.apply(&old, 1, &[]).await), StoreError::Fenced);
    other.database.close().await;
    clear(fixture).await
}

async fn holders_that_fight_apply_every_offset_once(fixture: &Fixture) -> Result {
    const HOLDERS: usize = 4;
    const END: i64 = 40;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..HOLDERS {
        let holder = fixture.another()?;
        tasks.spawn(async move {
            let source = source(6);
            let mut fenced = 0;
            loop {
                let fence = match holder.database.fence(&source).await {
                    Err(StoreError::Transient(_)) => continue,
                    fence => fence?,
                };
                let claim = claim(&source, &fence);
                // A few at a time, so that others get in between.
                for offset in fence.next_offset..END.min(fence.next_offset + 5) {
                    match holder.apply(&claim, offset, &[outgoing("x")]).await {
                        Ok(()) => {}
                        Err(StoreError::Fenced | StoreError::Transient(_)) => {
                            fenced += 1;
                            break;
                        }
                        Err(error) => return Err(error),
                    }
                }
                if fence.next_offset >= END {
                    holder.database.close().await;
                    return Ok(fenced);
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let source = source(6);
    let fence = fixture.database.fence(&source).await?;
    assert_eq!(fence.next_offset, END);
    assert_eq!(fixture.results().await?, END, "each offset left exactly one row");
    let outbox = fixture.positions_in_outbox(&claim(&source, &fence)).await?;
    assert_eq!(outbox, (1..=END).collect::<Vec<_>>());
    clear(fixture).await
}

async fn the_outbox_keeps_order_and_content(fixture: &Fixture) -> Result {
    let (source, other) = (source(7), source(8));
    let here = claim(&source, &fixture.database.fence(&source).await?);
    let there = claim(&other, &fixture.database.fence(&other).await?);
    let mut records: Vec<Outgoing> = (0..20).map(|n| outgoing(&format!("r{n}"))).collect();
    records[3].value = None;
    records[4].value = Some(Bytes::new());
    records[5].key = Bytes::new();
    records[6].headers = Vec::new();
    records[7].value = Some(Bytes::from(vec![7; 2 << 20]));
    fixture.apply(&here, 0, &records[..10]).await?;
    let mut tx = fixture.transaction(&Step::Hold(&there)).await?;
    tx.append(&there, &[outgoing("elsewhere")]).await?;
    tx.commit().await?;
    let mut tx = fixture.transaction(&Step::Hold(&here)).await?;
    tx.append(&here, &records[10..15]).await?;
    tx.append(&here, &[]).await?;
    tx.append(&here, &records[15..]).await?;
    tx.commit().await?;

    let rows = fixture.database.read_outbox(&here, 1000, usize::MAX).await?;
    assert_eq!(rows.iter().map(|row| row.record.clone()).collect::<Vec<_>>(), records);
    assert_eq!(
        rows.iter().map(|row| row.position).collect::<Vec<_>>(),
        (1..=20).collect::<Vec<_>>()
    );
    let some = fixture.database.read_outbox(&here, 3, usize::MAX).await?;
    assert_eq!(some.iter().map(|row| row.position).collect::<Vec<_>>(), [1, 2, 3]);

    fixture.database.delete_outbox(&here, 17).await?;
    assert_eq!(fixture.positions_in_outbox(&here).await?, [18, 19, 20]);
    fixture.database.delete_outbox(&here, 20).await?;
    assert_eq!(fixture.positions_in_outbox(&here).await?, [0; 0]);
    assert_eq!(fixture.positions_in_outbox(&there).await?, [1], "the neighbour's rows stay");

    // A position is never used again, and survives a takeover.
    let here = claim(&source, &fixture.database.fence(&source).await?);
    fixture.apply(&here, 1, &[outgoing("later")]).await?;
    assert_eq!(fixture.positions_in_outbox(&here).await?, [21]);
    clear(fixture).await
}

async fn what_is_read_of_the_outbox_is_bounded_in_bytes(fixture: &Fixture) -> Result {
    const LARGE: usize = 1 << 20;
    let source = source(23);
    let claim = claim(&source, &fixture.database.fence(&source).await?);
    let mut records: Vec<Outgoing> = (0..4).map(|n| outgoing(&format!("r{n}"))).collect();
    records[1].value = None;
    records[2].value = Some(Bytes::from(vec![7; LARGE]));
    fixture.apply(&claim, 0, &records).await?;

    let read = async |bytes| -> anyhow::Result<Vec<i64>> {
        let rows = fixture.database.read_outbox(&claim, 1000, bytes).await?;
        Ok(rows.iter().map(|row| row.position).collect())
    };
    // A key of two bytes each, and a value of two, none, and a large one.
    assert_eq!(read(4).await?, [1]);
    assert_eq!(read(5).await?, [1, 2]);
    assert_eq!(read(6).await?, [1, 2]);
    assert_eq!(read(LARGE).await?, [1, 2, 3]);
    assert_eq!(read(LARGE + 9).await?, [1, 2, 3, 4]);
    fixture.database.delete_outbox(&claim, 2).await?;
    assert_eq!(read(1).await?, [3], "one that is larger by itself still comes");
    fixture.database.delete_outbox(&claim, 4).await?;
    clear(fixture).await
}

async fn a_rollback_takes_the_outbox_rows_with_it(fixture: &Fixture) -> Result {
    let source = source(9);
    let claim = claim(&source, &fixture.database.fence(&source).await?);
    let mark = mark(0);
    let mut tx = fixture.transaction(&step(&claim, 0, &mark)).await?;
    tx.append(&claim, &[outgoing("lost")]).await?;
    drop(tx);
    fixture.apply(&claim, 0, &[outgoing("kept")]).await?;
    let rows = fixture.database.read_outbox(&claim, 10, usize::MAX).await?;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].position, &*rows[0].record.key), (1, &b"kept"[..]));
    clear(fixture).await
}

async fn a_snapshot_does_not_move(fixture: &Fixture) -> Result {
    let source = source(10);
    let claim = claim(&source, &fixture.database.fence(&source).await?);
    fixture.apply(&claim, 0, &[]).await?;
    let mut reader = Tx(fixture.database.snapshot().await?);
    let before = reader.count().await?;
    fixture.apply(&claim, 1, &[]).await?;
    let after = reader.count().await?;
    assert_eq!((before, after), (1, 1));
    assert!(reader.run("DELETE FROM result").await.is_err(), "a snapshot only reads");
    drop(reader);
    assert_eq!(fixture.results().await?, 2);
    clear(fixture).await
}

async fn a_row_reads_the_same_whatever_it_comes_from(fixture: &Fixture) -> Result {
    let key = [7_u8; 16];
    let mut tx = fixture.database.begin().await?;
    let sql = tx.sql();
    let insert = "INSERT INTO result (id, note, n) VALUES ($1, $2, $3)";
    sql.execute(insert, vec![key.into(), "é".into(), i64::MIN.into()]).await?;
    let select = "SELECT n, id, note, $2 AS uuid, (SELECT max(n) FROM result WHERE n = 0) AS none
                  FROM result WHERE id = $1";
    let row = sql.row(select, vec![key.into(), Value::Uuid([8; 16])]).await?.expect("it is there");
    assert_eq!((row.int(0)?, row.bytes(1)?, row.text(2)?), (i64::MIN, &key[..], "é"));
    assert_eq!((row.key("id")?, row.key("uuid")?), (key, [8; 16]));
    assert_eq!((row.int(4)?, row.bytes(4)?, row.get::<Option<i64>>("none")?), (0, &[][..], None));
    for misread in [
        row.int(2).map(drop),
        row.text(0).map(drop),
        row.text(4).map(drop),
        row.key("note").map(drop),
        row.get::<i64>("nowhere").map(drop),
    ] {
        assert!(matches!(failure(misread), StoreError::Refused(_)));
    }
    Ok(())
}

async fn a_violated_key_is_the_datas_fault_and_no_value_is_told(fixture: &Fixture) -> Result {
    let source = source(12);
    let claim = claim(&source, &fixture.database.fence(&source).await?);
    let mut tx = fixture.transaction(&Step::Hold(&claim)).await?;
    tx.insert(b"+8613800138000", "x").await?;
    let error = failure(tx.insert(b"+8613800138000", "x").await);
    assert!(matches!(error, StoreError::Rejected(_)), "{error}");
    assert!(error.to_string().contains("result"), "{error} names the constraint");
    for form in ["8613800138000", "2b38363133383030313338303030"] {
        assert!(!error.to_string().contains(form), "{error}");
    }
    Ok(())
}

async fn a_missing_table_is_not_the_datas_fault(fixture: &Fixture) -> Result {
    let source = source(13);
    let claim = claim(&source, &fixture.database.fence(&source).await?);
    let mut tx = fixture.transaction(&Step::Hold(&claim)).await?;
    let error = failure(tx.run("SELECT * FROM nowhere").await);
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
    Ok(())
}

async fn schemas_are_made_once_and_strange_ones_refused(fixture: &Fixture) -> Result {
    const FIRST: Migration = Migration {
        postgres: "CREATE TABLE step (n integer)",
        sqlite: "CREATE TABLE step (n INTEGER)",
    };
    const SECOND: Migration = Migration {
        postgres: "ALTER TABLE step ADD COLUMN m integer; CREATE INDEX step_m ON step (m);",
        sqlite: "ALTER TABLE step ADD COLUMN m INTEGER; CREATE INDEX step_m ON step (m);",
    };
    const BROKEN: Migration = Migration {
        postgres: "CREATE TABLE half (n integer); CREATE TABLE step (n integer);",
        sqlite: "CREATE TABLE half (n INTEGER); CREATE TABLE step (n INTEGER);",
    };
    const THIRD: Migration = Migration {
        postgres: "CREATE TABLE half (n integer)",
        sqlite: "CREATE TABLE half (n INTEGER)",
    };
    static SCHEMA: [Migration; 1] = [FIRST];

    // Several instances start at once.
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let other = fixture.another()?;
        tasks.spawn(async move {
            let schema = Schema::new("steps", &[], &SCHEMA);
            let done = schema.ensure(&other.database).await;
            other.database.close().await;
            done
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let database = &fixture.database;
    Schema::new("steps", &[], &[FIRST, SECOND]).ensure(database).await?;
    Schema::new("steps", &[], &[FIRST, SECOND]).ensure(database).await?;
    let newer = failure(Schema::new("steps", &[], &[FIRST]).ensure(database).await);
    assert!(newer.to_string().contains("newer than this program"), "{newer}");
    let outgrown = Schema::new("steps", &[], &[FIRST]).outgrown(database).await;
    assert!(newer.to_string().ends_with(&outgrown), "{outgrown}");
    let other_line = failure(Schema::new("steps", &[], &[SECOND, FIRST]).ensure(database).await);
    assert!(other_line.to_string().contains("another release line"), "{other_line}");

    // A step that fails leaves nothing behind.
    let broken =
        failure(Schema::new("steps", &[], &[FIRST, SECOND, BROKEN]).ensure(database).await);
    assert!(matches!(broken, StoreError::Refused(_)), "{broken}");
    Schema::new("steps", &[], &[FIRST, SECOND, THIRD]).ensure(database).await?;
    // The domains do not disturb each other.
    Schema::new("test", &[], DOMAIN).ensure(database).await?;
    Ok(())
}

async fn clear(fixture: &Fixture) -> Result {
    let source = source(99);
    let claim = claim(&source, &fixture.database.fence(&source).await?);
    let mut tx = fixture.transaction(&Step::Hold(&claim)).await?;
    tx.run("DELETE FROM result").await?;
    tx.commit().await?;
    Ok(())
}

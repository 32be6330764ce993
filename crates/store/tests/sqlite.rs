//! The suite on SQLite, and what only SQLite can do wrong.

mod common;
#[path = "common/suite.rs"]
mod suite;

use std::path::Path;

use common::{Fixture, claim, failure, source};
use sqlx::Row;
use tollgate_store::sqlite::{Bound, each};
use tollgate_store::{Database, Settings, SqlitePools, Step, connect, sqlite};
use tollgate_stream::StoreError;

fn settings(directory: &Path) -> Settings {
    Settings::for_url(format!("sqlite:{}/deep/down/test.db", directory.display()))
}

fn pools(fixture: &Fixture) -> &SqlitePools {
    match &fixture.database {
        Database::Sqlite(pools) => pools,
        Database::Postgres(_) => unreachable!("settings name a file"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_passes_the_suite() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(settings(directory.path())).await?;
    suite::everything(&fixture).await?;
    fixture.database.close().await;
    Ok(())
}

#[tokio::test]
async fn the_file_is_private_durable_and_keeps_foreign_keys() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(settings(directory.path())).await?;
    for (pragma, expected) in [
        ("PRAGMA journal_mode", "wal"),
        ("PRAGMA synchronous", "2"),
        ("PRAGMA foreign_keys", "1"),
        ("PRAGMA busy_timeout", "10000"),
    ] {
        for pool in [&pools(&fixture).writer, &pools(&fixture).readers] {
            let row = sqlx::query(pragma).fetch_one(pool).await?;
            let value = row
                .try_get::<String, _>(0)
                .or_else(|_| row.try_get::<i64, _>(0).map(|n| n.to_string()))?;
            assert_eq!(value, expected, "{pragma}");
        }
    }
    for name in ["test.db", "test.db-wal"] {
        let mode = directory.path().join("deep/down").join(name).metadata()?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    fixture.database.close().await;
    Ok(())
}

#[tokio::test]
async fn readers_cannot_write() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(settings(directory.path())).await?;
    let write = sqlx::query("DELETE FROM result").execute(&pools(&fixture).readers).await;
    assert!(write.is_err());
    Ok(())
}

#[tokio::test]
async fn what_is_too_big_or_of_the_wrong_type_is_the_datas_fault() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(settings(directory.path())).await?;
    let source = source(0);
    let claim = claim(&source, &fixture.database.fence(&source).await?);
    for (sql, expected) in [
        ("INSERT INTO result (id) VALUES (zeroblob(2000000000))", "TOOBIG"),
        ("INSERT INTO result (rowid, id) VALUES ('text', x'00')", "MISMATCH"),
        ("INSERT INTO result (id, n) VALUES (x'00', 'text')", "CONSTRAINT"),
    ] {
        let mut tx = fixture.transaction(&Step::Hold(&claim)).await?;
        let error = failure(tx.run(sql).await);
        assert!(
            matches!(&error, StoreError::Rejected(e) if e.contains(expected)),
            "{sql}: {error}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn another_process_that_writes_makes_a_takeover_try_again() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let settings = Settings {
        lock_timeout_ms: 50,
        idle_in_transaction_timeout_ms: 10,
        ..settings(directory.path())
    };
    let fixture = Fixture::new(settings).await?;
    let other = fixture.another()?;
    let source = source(0);
    let held = sqlite::begin(pools(&fixture)).await?;
    let error = failure(other.database.fence(&source).await);
    assert!(matches!(&error, StoreError::Transient(e) if e.contains("BUSY")), "{error}");
    held.rollback().await?;
    assert_eq!(other.database.fence(&source).await?.epoch, 1);
    Ok(())
}

#[tokio::test]
async fn a_full_file_is_transient_and_says_disk_full() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(settings(directory.path())).await?;
    let source = source(0);
    let claim = claim(&source, &fixture.database.fence(&source).await?);
    // The one writer connection: what SQLite answers when no page can be added.
    sqlx::query("PRAGMA max_page_count = 1").execute(&pools(&fixture).writer).await?;
    let mut tx = fixture.transaction(&Step::Hold(&claim)).await?;
    let error = failure(tx.insert(&vec![7; 200_000], "x").await);
    assert!(matches!(&error, StoreError::Transient(e) if e.contains("disk full")), "{error}");
    drop(tx);

    sqlx::query("PRAGMA max_page_count = 1000000").execute(&pools(&fixture).writer).await?;
    let mut tx = fixture.transaction(&Step::Hold(&claim)).await?;
    tx.insert(&vec![7; 200_000], "x").await?;
    tx.commit().await?;
    Ok(())
}

#[tokio::test]
async fn a_snapshot_that_sqlite_has_ended_is_not_read_from_for_ever() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let settings = Settings { max_connections: 1, ..settings(directory.path()) };
    let fixture = Fixture::new(settings).await?;
    let mut ended = sqlite::snapshot(pools(&fixture)).await?;
    // As a read error does it, without the driver's knowledge.
    sqlx::raw_sql("ROLLBACK").execute(&mut *ended).await?;
    drop(ended);
    for source in [source(0), source(1), source(2)] {
        fixture.database.fence(&source).await?;
        let mut snapshot = sqlite::snapshot(pools(&fixture)).await?;
        let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM tollgate_fence")
            .fetch_one(&mut *snapshot)
            .await?;
        assert_eq!(seen, i64::from(source.partition.partition) + 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_refused() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("deep"), "a file in the way")?;
    let error = failure(connect(&settings(directory.path())).map(drop));
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("x.db");
    std::fs::write(&file, "not a database, but long enough to have a header of one ".repeat(100))?;
    let database = connect(&Settings::for_url(format!("sqlite:{}", file.display())))?;
    let error = failure(database.ping().await);
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
    Ok(())
}

#[tokio::test]
async fn the_url_may_stand_in_a_file() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let secret = directory.path().join("url");
    std::fs::write(&secret, format!("sqlite:{}/x.db\n", directory.path().display()))?;
    let settings = Settings { url_file: Some(secret), ..Settings::default() };
    connect(&settings)?.ping().await?;
    let missing = Settings { url_file: Some(directory.path().join("no")), ..Settings::default() };
    assert!(matches!(failure(connect(&missing).map(drop)), StoreError::Refused(_)));
    Ok(())
}

/// More than fit into one message, and a number that leaves a remainder.
#[tokio::test]
async fn a_statement_is_run_for_each_item_in_order() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(settings(directory.path())).await?;
    let mut tx = sqlite::begin(pools(&fixture)).await?;
    sqlx::raw_sql("CREATE TABLE item (number INTEGER PRIMARY KEY, half INTEGER)")
        .execute(&mut *tx)
        .await?;
    let items: Vec<i64> = (0..75).collect();
    let insert = "INSERT INTO item (half, number) VALUES (?, ?) RETURNING number, half";
    let bind = |query: Bound, it: &i64| query.bind(*it / 2).bind(*it);
    let rows = each(&mut tx, insert, &items, bind).await?;
    let found = rows.iter().map(|row| row.ints(0)).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(found, items.iter().map(|it| [*it, it / 2]).collect::<Vec<_>>());

    // One of a message fails: nothing after it is done, and the same statement works again.
    let refused = each(&mut tx, insert, &[91, 90, 74, 92], bind).await;
    assert!(matches!(refused, Err(StoreError::Rejected(_))), "{refused:?}");
    let select = "SELECT number FROM item WHERE number = ?";
    let rows = each(&mut tx, select, &[92, 74, 90, 91], |query, it| query.bind(*it)).await?;
    let found = rows.iter().map(|row| row.int(0)).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(found, [74, 90, 91]);
    assert_eq!(each(&mut tx, insert, &[101, 102, 103, 104], bind).await?.len(), 4);
    assert_eq!(each(&mut tx, insert, &[], bind).await?.len(), 0);
    Ok(())
}

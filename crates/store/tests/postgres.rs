//! The suite on a real PostgreSQL, and what only PostgreSQL can do wrong.

mod common;
#[path = "common/suite.rs"]
mod suite;

use std::time::Duration;

use common::{Fixture, claim, failure, source};
use sqlx::PgPool;
use tollgate_store::new_rows::{NewRows, bigint, boolean, bytea, integer, smallint, text};
use tollgate_store::{Database, Migration, Schema, Settings, Step, connect, postgres};
use tollgate_stream::StoreError;
use tollgate_testkit::{Postgres, PostgresOptions, free_port};

fn settings(name: &str) -> anyhow::Result<Settings> {
    Ok(Settings::for_url(Postgres::shared().create_database(name)?))
}

fn pool(fixture: &Fixture) -> &PgPool {
    match &fixture.database {
        Database::Postgres(pool) => pool,
        Database::Sqlite(_) => unreachable!("settings name a server"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_passes_the_suite() -> anyhow::Result<()> {
    let fixture = Fixture::new(settings("suite")?).await?;
    suite::everything(&fixture).await?;
    fixture.database.close().await;
    Ok(())
}

#[tokio::test]
async fn every_session_has_its_timeouts_and_its_name() -> anyhow::Result<()> {
    let fixture = Fixture::new(settings("session")?).await?;
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(pool(&fixture).acquire().await?);
    }
    for connection in &mut connections {
        for (name, expected) in [
            ("statement_timeout", "30s"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "5s"),
            ("transaction_isolation", "read committed"),
            ("application_name", "tollgate"),
            ("search_path", "tollgate"),
            ("synchronous_commit", "on"),
            ("enable_seqscan", "off"),
            ("jit", "off"),
        ] {
            let value: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(name)
                .fetch_one(&mut **connection)
                .await?;
            assert_eq!(value, expected, "{name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_stopped_holder_does_not_hang_the_takeover() -> anyhow::Result<()> {
    let settings = settings("stopped")?;
    let fixture = Fixture::hasty(settings, |hasty| hasty.idle_in_transaction_timeout_ms = 2_000);
    let fixture = fixture.await?;
    let other = fixture.another()?;
    let source = source(0);
    let old = claim(&source, &fixture.database.fence(&source).await?);
    let mark = common::mark(0);
    // A process that is stopped here keeps its lock, and says nothing more.
    let mut stopped = fixture.transaction(&common::step(&old, 0, &mark)).await?;
    stopped.insert(b"lost", "x").await?;

    let fence = other.database.fence(&source).await?;
    assert_eq!((fence.epoch, fence.next_offset), (2, 0));

    // It wakes up, and can neither write nor commit.
    let error = failure(stopped.commit().await);
    assert!(matches!(error, StoreError::Transient(_)), "{error}");
    assert_eq!(failure(fixture.apply(&old, 0, &[]).await), StoreError::Fenced);
    assert_eq!(other.results().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_holder_that_was_stopped_in_a_copy_does_not_hang_the_takeover() -> anyhow::Result<()> {
    let hasty = |hasty: &mut Settings| {
        hasty.idle_in_transaction_timeout_ms = 2_000;
        hasty.lock_timeout_ms = 3_000;
    };
    let fixture = Fixture::hasty(settings("stopped_copy")?, hasty).await?;
    let other = fixture.another()?;
    let source = source(0);
    fixture.database.fence(&source).await?;
    let mut stopped = pool(&fixture).begin().await?;
    sqlx::query("UPDATE tollgate_fence SET epoch = epoch").execute(&mut *stopped).await?;
    // Here it is stopped: the server waits for rows, and does not call that idle.
    let copy = stopped.copy_in_raw("COPY tollgate_outbox FROM STDIN").await?;
    tollgate_testkit::eventually(Duration::from_secs(20), async || {
        anyhow::Ok(other.database.fence(&source).await?)
    })
    .await;
    assert!(copy.finish().await.is_err(), "it has been ended");
    Ok(())
}

#[tokio::test]
async fn a_lock_that_is_not_given_up_is_transient() -> anyhow::Result<()> {
    let settings = settings("lock")?;
    let fixture = Fixture::new(settings.clone()).await?;
    let hasty = Settings { lock_timeout_ms: 100, idle_in_transaction_timeout_ms: 50, ..settings };
    let other = connect(&hasty)?;
    let source = source(0);
    let claim = claim(&source, &fixture.database.fence(&source).await?);
    let held = fixture.transaction(&Step::Hold(&claim)).await?;
    let error = failure(other.fence(&source).await);
    assert!(matches!(&error, StoreError::Transient(e) if e.contains("55P03")), "{error}");
    drop(held);
    Ok(())
}

#[tokio::test]
async fn a_slow_statement_is_ended_and_transient() -> anyhow::Result<()> {
    let hasty = |hasty: &mut Settings| {
        hasty.statement_timeout_ms = 2_000;
        hasty.lock_timeout_ms = 1_900;
        hasty.idle_in_transaction_timeout_ms = 1_800;
    };
    let fixture = Fixture::hasty(settings("slow")?, hasty).await?;
    let mut tx = common::Tx(fixture.database.begin().await?);
    let error = failure(tx.run("SELECT pg_sleep(60)").await);
    assert!(matches!(&error, StoreError::Transient(e) if e.contains("57014")), "{error}");
    Ok(())
}

#[tokio::test]
async fn data_that_postgres_cannot_take_is_rejected_without_its_value() -> anyhow::Result<()> {
    let fixture = Fixture::new(settings("rejected")?).await?;
    let source = source(0);
    let claim = claim(&source, &fixture.database.fence(&source).await?);
    // Random enough not to be compressed below the limit of an index row.
    let mut seed = 1_u64;
    let long: String = (0..40_000)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + ((seed >> 33) % 90) as u8)
        })
        .collect();
    for (note, code) in [("+8613800138000\0", "22021"), (&*long, "54000")] {
        let mut tx = fixture.transaction(&Step::Hold(&claim)).await?;
        let error = failure(tx.insert(b"id", note).await);
        assert!(matches!(&error, StoreError::Rejected(e) if e.contains(code)), "{code}: {error}");
        assert!(!error.to_string().contains("8613") && error.to_string().len() < 100);
    }
    let mut tx = fixture.transaction(&Step::Hold(&claim)).await?;
    let error = failure(tx.run("INSERT INTO result (id, n) VALUES ('', 1e30)").await);
    assert!(matches!(&error, StoreError::Rejected(e) if e.contains("22003")), "{error}");
    Ok(())
}

#[tokio::test]
async fn of_two_that_deadlock_one_goes_on_and_the_other_tries_again() -> anyhow::Result<()> {
    let fixture = Fixture::new(settings("deadlock")?).await?;
    let (one, two) = (source(1), source(2));
    let one = claim(&one, &fixture.database.fence(&one).await?);
    let two = claim(&two, &fixture.database.fence(&two).await?);
    let mut first = postgres::transaction(pool(&fixture), &Step::Hold(&one)).await?;
    let mut second = postgres::transaction(pool(&fixture), &Step::Hold(&two)).await?;
    let results: (_, _) = tokio::join!(
        async {
            let result = postgres::hold(&mut first, &two).await;
            drop(first);
            result
        },
        async {
            let result = postgres::hold(&mut second, &one).await;
            drop(second);
            result
        }
    );
    let errors: Vec<_> = [results.0, results.1].into_iter().filter_map(Result::err).collect();
    assert!(matches!(&errors[..], [StoreError::Transient(e)] if e.contains("40P01")), "{errors:?}");
    Ok(())
}

/// Rows that are inserted, and rows that are copied.
const FEW_AND_MANY: [usize; 2] = [3, 3_000];

#[tokio::test]
async fn new_rows_are_written_as_they_are_however_many() -> anyhow::Result<()> {
    let fixture = Fixture::new(settings("new_rows")?).await?;
    let statement = "CREATE TABLE new_rows (n bigint, s smallint, i integer, b boolean, t text,
                                            v bytea)";
    sqlx::query(statement).execute(pool(&fixture)).await?;
    let columns = [bytea("v"), text("t"), boolean("b"), integer("i"), smallint("s"), bigint("n")];
    for count in FEW_AND_MANY {
        let mut rows = NewRows::of("new_rows", &columns);
        for n in 0..count as i64 {
            let value = [n as u8, 0, 255].repeat(20);
            let there = n % 3 != 0;
            rows.row()
                .field(there.then_some(&value))
                .field(there.then_some("a \\ b\tc"))
                .field(n % 2 == 0)
                .field(there.then_some(-(n as i32)))
                .field(-1_i16)
                .field(n);
        }
        let mut tx = postgres::begin(pool(&fixture)).await?;
        rows.write(&mut tx).await?;
        postgres::commit(tx).await?;
        let wrong: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM new_rows WHERE NOT (
                 s = -1 AND b = (n % 2 = 0)
                 AND CASE n % 3 WHEN 0 THEN v IS NULL AND t IS NULL AND i IS NULL
                     ELSE t = E'a \\\\ b\\tc' AND i = -n AND length(v) = 60
                          AND get_byte(v, 57) = n % 256 AND get_byte(v, 59) = 255 END)",
        )
        .fetch_one(pool(&fixture))
        .await?;
        let [found, first, last]: [i64; 3] = sqlx::query_as::<_, (i64, i64, i64)>(
            "WITH gone AS (DELETE FROM new_rows RETURNING n)
             SELECT count(DISTINCT n), min(n), max(n) FROM gone",
        )
        .fetch_one(pool(&fixture))
        .await?
        .into();
        assert_eq!((wrong, found, first, last), (0, count as i64, 0, count as i64 - 1));
    }
    Ok(())
}

#[tokio::test]
async fn new_rows_that_are_refused_leave_their_connection_in_order() -> anyhow::Result<()> {
    let settings = Settings { max_connections: 1, ..settings("refused_rows")? };
    let fixture = Fixture::new(settings).await?;
    let source = source(0);
    let claim = claim(&source, &fixture.database.fence(&source).await?);
    for count in FEW_AND_MANY {
        let mut tx = postgres::transaction(pool(&fixture), &Step::Hold(&claim)).await?;
        let columns = [bytea("source"), bigint("position"), text("topic"), bytea("key")];
        let mut rows = NewRows::of("tollgate_outbox", &columns);
        for position in 0..count as i64 {
            rows.row().field(b"no id of a source").field(position).field("t").field(&[0; 40]);
        }
        let error = failure(rows.write(&mut tx).await);
        // Columns are missing that must not be NULL.
        assert!(matches!(&error, StoreError::Rejected(code) if code.contains("23502")), "{error}");
        drop(tx);
        // The only connection there is: each answer must be that to its own question.
        for round in 0..3_i32 {
            let answer: i32 =
                sqlx::query_scalar("SELECT $1").bind(round).fetch_one(pool(&fixture)).await?;
            assert_eq!(answer, round);
        }
    }
    fixture.apply(&claim, 0, &[common::outgoing("a"), common::outgoing("b")]).await?;
    assert_eq!(fixture.database.read_outbox(&claim, 10, usize::MAX).await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_session_that_is_ended_is_transient_and_the_pool_recovers() -> anyhow::Result<()> {
    let fixture = Fixture::new(settings("ended")?).await?;
    let source = source(0);
    let claim = claim(&source, &fixture.database.fence(&source).await?);
    let mut tx = postgres::transaction(pool(&fixture), &Step::Hold(&claim)).await?;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await?;
    sqlx::query("SELECT pg_terminate_backend($1, 10000)").bind(pid).execute(pool(&fixture)).await?;
    let error =
        failure(postgres::append_outbox(&mut tx, &[(&claim, vec![common::outgoing("x")])]).await);
    assert!(matches!(error, StoreError::Transient(_)), "{error}");
    drop(tx);
    fixture.apply(&claim, 0, &[]).await?;
    Ok(())
}

/// Sends a signal to a process of the test's own server.
fn signal(pid: i32, name: &str) -> anyhow::Result<()> {
    let status = std::process::Command::new("kill").args([name, &pid.to_string()]).status()?;
    anyhow::ensure!(status.success(), "kill {name} failed");
    Ok(())
}

#[tokio::test]
async fn a_server_that_falls_silent_does_not_keep_the_pools_places() -> anyhow::Result<()> {
    let settings = Settings { max_connections: 1, ..settings("silent")? };
    let fixture = Fixture::hasty(settings, |hasty| hasty.connect_timeout_ms = 1_000).await?;
    let mut tx = postgres::begin(pool(&fixture)).await?;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await?;
    signal(pid, "-STOP")?;
    // The caller gives up; its connection, the only one, never answers again.
    let answer =
        tokio::time::timeout(Duration::from_millis(100), sqlx::query("SELECT 1").execute(&mut *tx))
            .await;
    assert!(answer.is_err(), "a stopped backend cannot answer");
    drop(tx);
    // No assertion before the backend goes on, or it would outlive its server.
    let mut recovered = fixture.database.ping().await;
    for _ in 0..50 {
        if recovered.is_ok() {
            break;
        }
        recovered = fixture.database.ping().await;
    }
    signal(pid, "-CONT")?;
    recovered?;
    Ok(())
}

#[tokio::test]
async fn connecting_succeeds_while_the_server_is_down_and_works_when_it_is_back()
-> anyhow::Result<()> {
    let server = Postgres::start(&PostgresOptions::new().fsync(false))?;
    let settings = Settings { connect_timeout_ms: 300, ..Settings::for_url(server.url()) };
    server.stop();
    let database = connect(&settings)?;
    let error = failure(database.ping().await);
    assert!(matches!(error, StoreError::Transient(_)), "{error}");
    let error = failure(Schema::new("test", &[], common::DOMAIN).ensure(&database).await);
    assert!(matches!(error, StoreError::Transient(_)), "{error}");

    server.restart()?;
    let patient = connect(&Settings { connect_timeout_ms: 10_000, ..settings })?;
    Schema::new("test", &[], common::DOMAIN).ensure(&patient).await?;
    let source = source(0);
    let claim = claim(&source, &database.fence(&source).await?);

    // And it survives the server's death without being made again.
    server.kill();
    let error = failure(database.fence(&source).await);
    assert!(matches!(error, StoreError::Transient(_)), "{error}");
    server.restart()?;
    let fixture = Fixture { database, settings: Settings::default() };
    let applied = tollgate_testkit::eventually(Duration::from_secs(20), async || {
        match fixture.apply(&claim, 0, &[]).await {
            Err(StoreError::Transient(e)) => Err(e),
            other => Ok(other),
        }
    })
    .await;
    applied?;
    Ok(())
}

#[tokio::test]
async fn a_wrong_login_or_database_is_refused_with_its_own_message() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir()?;
    let hba = directory.path().join("pg_hba.conf");
    std::fs::write(
        &hba,
        "local all all trust\nhost all guarded 127.0.0.1/32 scram-sha-256\n\
         host all tollgate 127.0.0.1/32 trust\n",
    )?;
    // The server runs under another account.
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
    std::fs::set_permissions(&hba, std::fs::Permissions::from_mode(0o644))?;
    let server = Postgres::start(
        &PostgresOptions::new().fsync(false).setting("hba_file", &hba.display().to_string()),
    )?;
    server.sql("postgres", "CREATE ROLE guarded LOGIN PASSWORD 'right'")?;
    let port = server.port();
    for (login, database, expected) in [
        ("guarded:wrong", "postgres", "28P01, login refused"),
        ("stranger:any", "postgres", "28000, login refused"),
        ("tollgate", "nowhere", "3D000, no such database"),
    ] {
        let url = format!("postgres://{login}@127.0.0.1:{port}/{database}");
        let error = failure(connect(&Settings::for_url(url))?.ping().await);
        assert!(matches!(&error, StoreError::Refused(e) if e.contains(expected)), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
    let url = format!("postgres://guarded:right@127.0.0.1:{port}/postgres");
    let guarded = connect(&Settings::for_url(url))?;
    guarded.ping().await?;
    let error = failure(Schema::new("test", &[], common::DOMAIN).ensure(&guarded).await);
    assert!(matches!(&error, StoreError::Refused(e) if e.contains("42501")), "{error}");
    // With a schema of its own it needs no further right.
    server.sql("postgres", "CREATE SCHEMA tollgate AUTHORIZATION guarded")?;
    Schema::new("test", &[], common::DOMAIN).ensure(&guarded).await?;
    Ok(())
}

/// A step that came to the tables in its own order would hold one that the transaction wants, and
/// want one that it holds.
#[tokio::test]
async fn a_migration_goes_on_when_those_who_wait_for_it_give_up() -> anyhow::Result<()> {
    const SLOW: Migration =
        Migration { postgres: "CREATE TABLE slow (n bigint); SELECT pg_sleep(1)", sqlite: "" };
    let fixture = Fixture::new(settings("impatient")?).await?;
    let schema = Schema::new("impatient", &[], &[SLOW]);
    tollgate_testkit::eventually(Duration::from_secs(20), async || {
        let waiting = schema.ensure(&fixture.database);
        anyhow::Ok(tokio::time::timeout(Duration::from_millis(200), waiting).await??)
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_waits_for_transactions_of_an_older_release_before_it_begins()
-> anyhow::Result<()> {
    const TABLES: &[&str] = &["one", "two", "later"];
    const FIRST: Migration = Migration {
        postgres: "CREATE TABLE one (n integer); CREATE TABLE two (n integer)",
        sqlite: "",
    };
    const SECOND: Migration = Migration {
        postgres: "CREATE TABLE later (n integer);
                   ALTER TABLE two ADD COLUMN m integer;
                   ALTER TABLE one ADD COLUMN m integer",
        sqlite: "",
    };
    let fixture = Fixture::new(settings("older")?).await?;
    Schema::new("older", TABLES, &[FIRST]).ensure(&fixture.database).await?;
    let mut older = pool(&fixture).begin().await?;
    sqlx::query("INSERT INTO one VALUES (1)").execute(&mut *older).await?;
    let database = fixture.database.clone();
    let migrated = tokio::spawn(async move {
        Schema::new("older", TABLES, &[FIRST, SECOND]).ensure(&database).await
    });
    tollgate_testkit::eventually(Duration::from_secs(20), async || {
        let waits: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'one'::regclass)",
        )
        .fetch_one(pool(&fixture))
        .await?;
        anyhow::ensure!(waits, "the migration has not come to the tables");
        Ok(())
    })
    .await;
    sqlx::query("INSERT INTO two VALUES (1)").execute(&mut *older).await?;
    older.commit().await?;
    migrated.await??;
    Ok(())
}

#[tokio::test]
async fn nothing_listening_is_transient() -> anyhow::Result<()> {
    let url = format!("postgres://x:secret@127.0.0.1:{}/x", free_port());
    let settings = Settings { connect_timeout_ms: 100, ..Settings::for_url(url) };
    let error = failure(connect(&settings)?.ping().await);
    assert!(matches!(error, StoreError::Transient(_)), "{error}");
    Ok(())
}

#[tokio::test]
async fn two_schemas_in_one_database_do_not_meet() -> anyhow::Result<()> {
    let blue = settings("schemas")?;
    let green = Settings { schema: "green".to_owned(), ..blue.clone() };
    let (blue, green) = (Fixture::new(blue).await?, Fixture::new(green).await?);
    let source = source(0);
    assert_eq!(blue.database.fence(&source).await?.epoch, 1);
    assert_eq!(blue.database.fence(&source).await?.epoch, 2);
    assert_eq!(green.database.fence(&source).await?.epoch, 1);
    Ok(())
}

//! What an error of the database means for the caller.
//!
//! The database's own messages and details quote values of rows, and values contain phone
//! numbers: nothing of them is taken over but SQLSTATE and the names of constraints.

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;
use tollgate_stream::StoreError;

use crate::metrics::counted;

/// Sorts an error of a statement that wrote or read a domain's data, and counts it.
///
/// [`StoreError::Rejected`] means that the data is at fault, so that the caller looks for the
/// record; everything else is about the database.
#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
pub fn classify(error: sqlx::Error) -> StoreError {
    counted(sort(&error))
}

/// Sorts an error of a statement that carries no data of a record: a connection being set up, a
/// fence, a commit. No record is at fault then, so nothing may be quarantined for it.
#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
pub(crate) fn classify_own(error: sqlx::Error) -> StoreError {
    counted(match sort(&error) {
        StoreError::Rejected(code) => StoreError::Refused(format!(
            "own tables do not fit ({code}); was the schema changed by hand?"
        )),
        other => other,
    })
}

fn sort(error: &sqlx::Error) -> StoreError {
    use StoreError::{Refused, Rejected, Transient};
    use sqlx::Error as E;
    match error {
        E::Database(error) => sort_database(&**error),
        E::Io(error) => Transient(format!("connection failed: {}", error.kind())),
        E::PoolTimedOut => Transient(
            "no connection in time; is it reachable, and is max_connections enough?".to_owned(),
        ),
        E::PoolClosed => Transient("pool is closed".to_owned()),
        E::WorkerCrashed => Transient("worker of the driver has died".to_owned()),
        E::Protocol(_) => Transient("protocol broke off".to_owned()),
        E::BeginFailed => Transient("transaction did not begin".to_owned()),
        E::Tls(_) => Refused("TLS handshake failed; check sslmode and sslrootcert".to_owned()),
        E::Configuration(_) => Refused("url cannot be used; check its form".to_owned()),
        E::Encode(_) => Rejected("value cannot be encoded".to_owned()),
        E::ColumnDecode { index, .. } => {
            Refused(format!("column {index} has another type; was the schema changed by hand?"))
        }
        E::ColumnNotFound(name) => {
            Refused(format!("column {name} is missing; was the schema changed by hand?"))
        }
        E::RowNotFound => Refused("a row that must exist is missing".to_owned()),
        _ => Refused("driver refuses the statement".to_owned()),
    }
}

fn sort_database(error: &dyn DatabaseError) -> StoreError {
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        return sort_sqlstate(error.code(), error.constraint());
    }
    if error.try_downcast_ref::<SqliteError>().is_some() {
        let code = error.code().and_then(|code| code.parse().ok()).unwrap_or(1);
        return sort_sqlite(code, error.message());
    }
    StoreError::Refused("unknown driver".to_owned())
}

/// PostgreSQL, appendix A of its manual.
fn sort_sqlstate(code: &str, constraint: Option<&str>) -> StoreError {
    use StoreError::{Refused, Rejected, Transient};
    let class = code.get(..2).unwrap_or("");
    match (class, code) {
        ("22" | "23" | "54", _) => Rejected(match constraint {
            Some(constraint) => format!("SQLSTATE {code}, constraint {constraint}"),
            None => format!("SQLSTATE {code}"),
        }),
        (_, "40001") => Transient("40001, serialization failure".to_owned()),
        (_, "40P01") => Transient("40P01, deadlock".to_owned()),
        (_, "25P03") => Transient("25P03, idle in transaction for too long".to_owned()),
        (_, "25006") => Transient("25006, server is read-only, a standby perhaps".to_owned()),
        (_, "55P03") => Transient("55P03, lock_timeout".to_owned()),
        (_, "57014") => Transient("57014, statement_timeout".to_owned()),
        (_, "53100") => Transient("53100, disk full".to_owned()),
        (_, "53300") => Transient("53300, too many connections".to_owned()),
        ("08" | "25" | "40" | "53" | "55" | "57" | "58", _) => {
            Transient(format!("SQLSTATE {code}"))
        }
        ("28", _) => Refused(format!(
            "{code}, login refused; check user and password of the url, and pg_hba.conf"
        )),
        ("3D", _) => Refused(format!("{code}, no such database; create it or mend the url")),
        (_, "42501") => Refused("42501, no permission; grant the user its schema".to_owned()),
        ("42" | "3F", _) | (_, "0A000") => {
            Refused(format!("{code}, schema does not fit this program; was it migrated?"))
        }
        _ => Refused(format!("SQLSTATE {code}")),
    }
}

/// SQLite's extended result codes, <https://www.sqlite.org/rescode.html>.
fn sort_sqlite(code: i32, message: &str) -> StoreError {
    use StoreError::{Refused, Rejected, Transient};
    match code & 0xff {
        // After this prefix SQLite writes names of tables and columns only, never a value;
        // a trigger's message (code 1811) is anything, so only the known ones are taken.
        19 => Rejected(match (code, message.split_once(" constraint failed: ")) {
            (275 | 1299 | 1555 | 2067, Some((_, names))) => {
                format!("SQLite CONSTRAINT {code}, {names}")
            }
            _ => format!("SQLite CONSTRAINT {code}"),
        }),
        18 => Rejected("SQLite TOOBIG".to_owned()),
        20 => Rejected("SQLite MISMATCH".to_owned()),
        5 => Transient("SQLite BUSY, another process is writing".to_owned()),
        6 => Transient("SQLite LOCKED".to_owned()),
        13 => Transient("SQLite FULL, disk full".to_owned()),
        10 => Transient(format!("SQLite IOERR {code}")),
        // NOMEM, INTERRUPT, PROTOCOL, SCHEMA
        7 | 9 | 15 | 17 => Transient(format!("SQLite {code}")),
        8 => Refused("SQLite READONLY; may the user write the file and its directory?".to_owned()),
        11 | 26 => Refused("SQLite file is damaged or no database; restore it".to_owned()),
        14 => {
            Refused("SQLite CANTOPEN; does the directory exist, may the user write it?".to_owned())
        }
        1 => Refused("SQLite ERROR, schema does not fit this program; was it migrated?".to_owned()),
        _ => Refused(format!("SQLite {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(error: &StoreError) -> &'static str {
        match error {
            StoreError::Fenced => "fenced",
            StoreError::Rejected(_) => "rejected",
            StoreError::Transient(_) => "transient",
            StoreError::Refused(_) => "refused",
        }
    }

    #[test]
    fn every_sqlstate_named_in_the_design_has_its_class() {
        for (code, expected) in [
            ("22001", "rejected"),
            ("22021", "rejected"),
            ("23505", "rejected"),
            ("54000", "rejected"),
            ("40001", "transient"),
            ("40P01", "transient"),
            ("55P03", "transient"),
            ("57014", "transient"),
            ("57P01", "transient"),
            ("57P03", "transient"),
            ("08006", "transient"),
            ("53100", "transient"),
            ("25P03", "transient"),
            ("25006", "transient"),
            ("28P01", "refused"),
            ("3D000", "refused"),
            ("42P01", "refused"),
            ("42501", "refused"),
            ("XX001", "refused"),
            ("", "refused"),
        ] {
            assert_eq!(class(&sort_sqlstate(code, None)), expected, "{code}");
        }
        assert_eq!(
            sort_sqlstate("23505", Some("ledger_pkey")),
            StoreError::Rejected("SQLSTATE 23505, constraint ledger_pkey".to_owned())
        );
    }

    #[test]
    fn every_sqlite_code_named_in_the_design_has_its_class() {
        for (code, expected) in [
            (19, "rejected"),
            (2067, "rejected"),
            (18, "rejected"),
            (20, "rejected"),
            (5, "transient"),
            (517, "transient"),
            (6, "transient"),
            (778, "transient"),
            (13, "transient"),
            (1, "refused"),
            (14, "refused"),
            (26, "refused"),
        ] {
            assert_eq!(class(&sort_sqlite(code, "")), expected, "{code}");
        }
        assert!(sort_sqlite(13, "").to_string().contains("disk full"));
        let trigger = sort_sqlite(1811, "x constraint failed: +8613800138000");
        assert!(!trigger.to_string().contains("8613"));
    }

    #[test]
    fn errors_of_own_statements_never_blame_a_record() {
        let error = sqlx::Error::Encode("x".into());
        assert_eq!(class(&classify_own(error)), "refused");
    }
}

//! `tollgate tariff check|activate|list`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use jiff::Timestamp;
use tollgate_billing::BillingStore;
use tollgate_rating::{Rate, Tariff};
use tollgate_store::{Database, Found};

use super::Refused;
use crate::cli::{self, Cli};
use crate::compose;
use crate::config::{Config, Part};
use crate::say::say;

pub async fn run(cli: &Cli, command: &cli::Tariff) -> anyhow::Result<ExitCode> {
    match command {
        cli::Tariff::Check { file } => {
            let (_, tariff) = read(file)?;
            describe(&tariff);
        }
        cli::Tariff::Activate { file, from } => {
            let (text, tariff) = read(file)?;
            let now = Timestamp::now();
            let from_ms = match from.as_deref() {
                None => now.as_millisecond(),
                Some("beginning") => i64::MIN,
                Some(time) => time
                    .parse::<Timestamp>()
                    .map_err(|_| {
                        Refused(
                            "--from: expected `beginning` or a time such as 2026-12-01T00:00:00Z"
                                .into(),
                        )
                    })?
                    .as_millisecond(),
            };
            let config = config(cli)?;
            let place = config.database.place()?;
            let store = store(&config, compose::database(&config.database)?)?;
            refuse_the_file_of_others(&store, &place).await?;
            let version = store.register_tariff(&text, now.as_millisecond()).await;
            let version = version.with_context(|| place.clone())?;
            let activation = store.activate_tariff(&version, from_ms, now.as_millisecond()).await?;
            describe(&tariff);
            if activation.activated_ms < now.as_millisecond() {
                let since = when(activation.activated_ms);
                say!(
                    "active already, from {} on, since {since}: nothing has changed",
                    when(from_ms)
                );
            } else {
                say!("{}", activated(from_ms, from.is_none()));
            }
            if let Some(warning) = leaves_out(&tariff, from_ms) {
                say!("{warning}");
            }
            say!("this stands in {place}");
            let group = &config.billing.group;
            if !store.has_served(group).await? {
                say!(
                    "no billing consumer (group {group}) has used it yet: if billing has run before, \
                     check database.url and database.schema"
                );
            }
        }
        cli::Tariff::List => list(cli).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Only reads: what is not there is not made, and what is older is left as it is.
async fn list(cli: &Cli) -> anyhow::Result<()> {
    let config = config(cli)?;
    let place = config.database.place()?;
    let absent = || {
        Refused(format!(
            "{place} holds no tables of billing; check database.url and database.schema. A billing \
             consumer makes them when it starts, and `tollgate tariff activate` does"
        ))
    };
    let database = tollgate_store::connect_existing(&config.database)?.ok_or_else(absent)?;
    let store = store(&config, database)?;
    match store.find().await.with_context(|| place.clone())? {
        Found::Current => {}
        Found::Older => anyhow::bail!(
            "{place} holds the tables of an older release, and listing leaves them as they are; \
             list with that release, or start a billing consumer of this one, which migrates them"
        ),
        Found::Nothing { .. } => return Err(absent().into()),
    }
    let (tariffs, activations) = store.tariffs_there().await?;
    for row in &tariffs {
        let name =
            Tariff::parse(&row.content).map_or_else(|_| "?".into(), |it| it.name().to_owned());
        say!("{}  {name}  registered {}", row.version, when(row.registered_ms));
        for activation in activations.iter().filter(|it| it.version == row.version) {
            let (from, at) = (when(activation.from_ms), when(activation.activated_ms));
            say!("    for calls billed from {from} on, activated {at}");
        }
    }
    if tariffs.is_empty() {
        say!("no tariff is registered; `tollgate tariff activate FILE` registers one");
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<(String, Tariff)> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("{name} cannot be read"))?;
    let tariff = Tariff::parse(&text).map_err(|error| Refused(format!("{name}: {error}")))?;
    Ok((text, tariff))
}

fn config(cli: &Cli) -> anyhow::Result<Config> {
    let config = Config::read(cli, serde_json::json!({}))?;
    config.validate(&[Part::Database, Part::Billing])?;
    Ok(config)
}

fn store(config: &Config, database: Database) -> anyhow::Result<BillingStore> {
    Ok(BillingStore::open(database, &config.billing, compose::billing_applications(config))?)
}

/// Consumers share a schema of PostgreSQL, but never a SQLite file, which has one writer.
async fn refuse_the_file_of_others(store: &BillingStore, place: &str) -> anyhow::Result<()> {
    let Database::Sqlite(_) = store.database() else { return Ok(()) };
    let found = store.find().await.with_context(|| place.to_owned())?;
    let Found::Nothing { others } = found else { return Ok(()) };
    if let Some(other) = others.first() {
        let text = format!("{place} is the file of {other}; name that of billing in database.url");
        return Err(Refused(text).into());
    }
    Ok(())
}

fn describe(tariff: &Tariff) {
    say!(
        "{}: {}, {}, rounded {}",
        tariff.name(),
        tariff.currency(),
        tariff.policy().name(),
        tariff.rounding().name()
    );
    for rate in tariff.rates() {
        say!("  {}: {} {} a minute", rate.name(), rate.price_per_minute(), tariff.currency());
    }
    say!("version {}", tariff.version());
}

/// What an activation does to calls that were there before it.
fn activated(from_ms: i64, by_default: bool) -> String {
    let from = when(from_ms);
    let hint = "\nthose billed before wait as they did; `--from beginning` covers them too";
    format!(
        "active: calls billed from {from} on that no tariff covered are rated now; what is charged \
         stays as it is{}",
        if by_default { hint } else { "" }
    )
}

/// A call is billed by the tariff of its end, and by the rate of its answer.
fn leaves_out(tariff: &Tariff, from_ms: i64) -> Option<String> {
    let begins = |rate: &Rate| rate.validity().from.map(Timestamp::as_millisecond);
    let late = tariff.rates().iter().find(|rate| begins(rate) == Some(from_ms))?;
    Some(format!(
        "rate {} begins when the tariff does, so calls that were answered before {} and end after it \
         have no rate and wait as unrated: leave valid_from out of rates that begin with their tariff",
        late.name(),
        when(from_ms)
    ))
}

fn when(ms: i64) -> String {
    if ms == i64::MIN {
        return "the beginning".into();
    }
    tollgate_schema::time::rfc3339(ms).unwrap_or_else(|| ms.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_begins_with_its_tariff_is_warned_of() {
        let text = |valid_from: &str| {
            let sample = tollgate_rating::SAMPLE_TARIFF;
            sample.replacen("[[rates]]", &format!("[[rates]]\n{valid_from}"), 1)
        };
        let parse = |valid_from| Tariff::parse(&text(valid_from)).unwrap();
        let from_ms = 1_796_054_400_000;
        let late = parse(r#"valid_from = "2026-11-30T16:00:00Z""#);
        let warning = leaves_out(&late, from_ms).unwrap();
        assert!(warning.contains("end after it have no rate"), "{warning}");
        assert!(warning.contains("leave valid_from out"), "{warning}");
        assert_eq!(leaves_out(&late, i64::MIN), None);
        assert_eq!(leaves_out(&parse(""), from_ms), None);
    }

    #[test]
    fn an_activation_says_which_waiting_calls_it_covers() {
        let now = activated(1_795_399_200_000, true);
        assert!(
            now.contains("billed from 2026-11-23T02:00:00Z on that no tariff covered"),
            "{now}"
        );
        assert!(now.contains("those billed before wait") && now.contains("--from beginning"));
        let all = activated(i64::MIN, false);
        assert!(all.contains("billed from the beginning on") && !all.contains("wait"), "{all}");
    }
}

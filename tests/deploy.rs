//! What is deployed is what the program accepts and measures: Compose, proxy, Prometheus rules,
//! dashboard and the pages for those on call, held against the binary and the code.

mod common;
#[path = "deploy/files.rs"]
mod files;
#[path = "deploy/metrics.rs"]
mod metrics;
#[path = "deploy/pages.rs"]
mod pages;
#[path = "deploy/prometheus.rs"]
mod prometheus;
#[path = "deploy/promql.rs"]
mod promql;
#[path = "deploy/stack.rs"]
mod stack;

use std::collections::{BTreeSet, HashSet};

use anyhow::{Context, Result, ensure};
use common::succeed;
use files::{exists, list, read, text_of, yaml};
use stack::{Service, Stack};
use tollgate_schema::topics::{ALL, Topic};

#[test]
fn the_binary_accepts_the_settings_and_knows_the_command_of_every_service() -> Result<()> {
    let stack = Stack::read()?;
    let ours: Vec<&Service> = stack.ours().collect();
    ensure!(ours.len() == 5, "{} services run this program", ours.len());
    for service in ours {
        for (name, _) in &service.environment {
            ensure!(name.starts_with("TOLLGATE_"), "{}: {name} is no setting", service.name);
        }
        service.run(&["config", "check"])?;
        let mut help: Vec<&str> = service.command.iter().map(String::as_str).collect();
        help.push("--help");
        service.run(&help)?;
    }
    Ok(())
}

#[test]
fn every_port_that_something_asks_is_the_port_that_is_served() -> Result<()> {
    let stack = Stack::read()?;
    for service in stack.ours() {
        let settings = service.settings()?;
        let health = settings.port("listeners", "health")?;
        for published in &service.ports {
            let (host, inside) = published.rsplit_once(':').context("a port without a host")?;
            ensure!(host.starts_with("127.0.0.1:"), "{} publishes {published}", service.name);
            let query = settings.open_port("listeners", "query")?;
            ensure!(inside == query.to_string(), "{} publishes {published}", service.name);
        }
        if let Some(url) = &service.health_check {
            let own = ["readyz", "livez"].map(|page| format!("http://127.0.0.1:{health}/{page}"));
            ensure!(own.contains(url), "{} is asked at {url}", service.name);
        }
    }
    Ok(())
}

#[test]
fn the_image_runs_the_binary_of_the_pinned_toolchain() -> Result<()> {
    let image = read("deploy/container/Dockerfile")?;
    let toolchain = read("rust-toolchain.toml")?;
    let channel = toolchain.split('"').nth(1).context("no channel")?;
    let (release, _) = channel.rsplit_once('.').context("channel without a patch level")?;
    ensure!(
        image.contains(&format!("FROM rust:{release}-")),
        "the image is not built by {channel}"
    );
    ensure!(image.contains("ENTRYPOINT [\"tollgate\"]"), "commands of services are arguments");
    ensure!(image.contains("\nUSER tollgate\n"), "it runs as root");
    // What health checks are made with.
    ensure!(image.contains(" curl "), "curl is not in the image");
    Ok(())
}

#[test]
fn the_proxy_sends_to_every_edge_and_asks_for_its_health() -> Result<()> {
    let stack = Stack::read()?;
    let text = read("deploy/proxy/haproxy.cfg")?;
    let words = |name: &str| -> Vec<Vec<String>> {
        let lines = text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect());
        lines.filter(|line: &Vec<String>| line.first().is_some_and(|it| it == name)).collect()
    };
    let default = words("default-server").pop().context("no default-server")?;
    let after = |name: &str| default.iter().skip_while(|it| *it != name).nth(1).cloned();
    let asked = after("port").context("no port is asked for health")?;
    ensure!(text.contains("option httpchk GET /readyz"), "another page is asked for health");

    let mut served = BTreeSet::new();
    for server in words("server") {
        let (host, port) = server[2].split_once(':').context("server without a port")?;
        let service = stack.named(host)?;
        let settings = service.settings()?;
        ensure!(service.command == ["edge"], "{host} is no edge");
        ensure!(port == settings.open_port("edge", "listen")?.to_string(), "{host}: {port}");
        ensure!(asked == settings.open_port("listeners", "health")?.to_string(), "{host}: {asked}");
        served.insert(host.to_owned());

        // Unready for longer than the proxy needs to notice, and given time for the rest.
        let number = |name: &str, fallback: u64| -> Result<u64> {
            after(name).map_or(Ok(fallback), |it| Ok(it.trim_end_matches('s').parse()?))
        };
        let notices_ms = (number("fall", 3)? + 1) * number("inter", 2)? * 1000;
        let edge = |name: &str| settings.number("edge", name);
        let drain = edge("drain_delay_ms")?;
        ensure!(drain >= notices_ms, "{host} drains for {drain} ms, noticed after {notices_ms}");
        let answers = edge("body_deadline_ms")? + edge("delivered_deadline_ms")?;
        let needed = drain + answers + 5_000 + edge("flush_deadline_ms")?;
        let grace = service.grace_seconds()? * 1000;
        ensure!(grace > needed, "{host} is killed after {grace} ms and needs {needed}");

        // An idle connection ends at the proxy first.
        let idle = words("timeout").into_iter().find(|it| it[1] == "http-keep-alive");
        let idle: u64 = idle.context("no http-keep-alive")?[2].trim_end_matches('s').parse()?;
        ensure!(idle < edge("keep_alive_seconds")?, "{host} ends idle connections first");
    }
    let edges: BTreeSet<_> = stack.edges().map(|edge| edge.name.clone()).collect();
    ensure!(served == edges, "the proxy knows {served:?}, there are {edges:?}");

    let bind = words("bind").pop().context("no bind")?[1].trim_start_matches(':').to_owned();
    let proxy = stack.named("proxy")?;
    ensure!(
        proxy.ports.iter().all(|port| port.ends_with(&format!(":{bind}"))),
        "{:?}",
        proxy.ports
    );
    Ok(())
}

#[test]
fn every_edge_has_a_name_and_a_durable_spool_of_its_own() -> Result<()> {
    let stack = Stack::read()?;
    let (mut names, mut volumes) = (HashSet::new(), HashSet::new());
    for edge in stack.edges() {
        let settings = edge.settings()?;
        let name = settings.text("edge", "edge_id")?;
        ensure!(names.insert(name.clone()), "two edges are called {name}");
        let dir = settings.text("spool", "dir")?;
        let volume = edge.volumes.iter().find(|it| dir.starts_with(&format!("{}/", it.target)));
        let volume = volume.with_context(|| format!("{dir} of {name} is on no volume"))?;
        ensure!(stack.volumes.contains(&volume.source), "{} is not durable", volume.source);
        ensure!(volumes.insert(volume.source.clone()), "two edges write to {}", volume.source);
    }
    ensure!(names.len() >= 2, "there are two edges");
    Ok(())
}

#[test]
fn prometheus_scrapes_every_service_at_its_health_listener() -> Result<()> {
    let stack = Stack::read()?;
    let prometheus = yaml("deploy/prometheus/prometheus.yml")?;
    let mut targets = BTreeSet::new();
    for job in list(&prometheus["scrape_configs"])? {
        ensure!(text_of(&job["job_name"])? == metrics::JOB, "alerts name another job");
        for group in list(&job["static_configs"])? {
            for target in list(&group["targets"])? {
                targets.insert(text_of(target)?);
            }
        }
    }
    let mut served = BTreeSet::new();
    for service in stack.ours().filter(|service| service.command != ["topics", "create"]) {
        let port = service.settings()?.open_port("listeners", "health")?;
        served.insert(format!("{}:{port}", service.name));
    }
    ensure!(targets == served, "scraped {targets:?}, served {served:?}");

    let service = stack.named("prometheus")?;
    for rules in list(&prometheus["rule_files"])? {
        let path = format!("/etc/prometheus/{}", text_of(rules)?);
        let mounted = service.volumes.iter().any(|volume| volume.target == path);
        ensure!(mounted, "{path} is not mounted");
    }
    Ok(())
}

#[test]
fn grafana_finds_its_datasource_and_its_dashboards() -> Result<()> {
    let stack = Stack::read()?;
    let sources = yaml("deploy/grafana/provisioning/datasources/prometheus.yml")?;
    let source = &list(&sources["datasources"])?[0];
    ensure!(text_of(&source["uid"])? == metrics::DATASOURCE);
    let (host, port) = text_of(&source["url"])?
        .trim_start_matches("http://")
        .split_once(':')
        .map(|(host, port)| (host.to_owned(), port.to_owned()))
        .context("datasource without a port")?;
    ensure!(stack.named(&host)?.ports.iter().any(|it| it.ends_with(&format!(":{port}"))));
    let providers = yaml("deploy/grafana/provisioning/dashboards/tollgate.yml")?;
    let path = text_of(&list(&providers["providers"])?[0]["options"]["path"])?;
    let grafana = stack.named("grafana")?;
    let mount = grafana.volumes.iter().find(|it| it.target == path).context("no dashboards")?;
    ensure!(exists(&format!("{}/tollgate.json", mount.source)), "no dashboard in {}", mount.source);
    Ok(())
}

#[test]
fn every_volume_secret_and_mounted_file_is_there() -> Result<()> {
    let stack = Stack::read()?;
    let (mut used, mut shown) = (BTreeSet::new(), BTreeSet::new());
    for service in &stack.services {
        for volume in &service.volumes {
            if volume.source.starts_with("./") {
                ensure!(exists(&volume.source), "{}: {} is missing", service.name, volume.source);
            } else {
                used.insert(volume.source.clone());
            }
        }
        shown.extend(service.secrets.iter().cloned());
        for (name, value) in &service.environment {
            let Some(secret) = value.strip_prefix("/run/secrets/") else { continue };
            let granted = service.secrets.iter().any(|it| it == secret);
            ensure!(granted, "{}: {name} names {secret}, which it is not given", service.name);
        }
        for other in &service.depends_on {
            stack.named(other)?;
        }
    }
    ensure!(used == stack.volumes, "used {used:?}, declared {:?}", stack.volumes);
    let declared: BTreeSet<_> = stack.secrets.keys().cloned().collect();
    ensure!(shown == declared, "used {shown:?}, declared {declared:?}");

    let (maker, ignored) = (read("deploy/compose/secrets.sh")?, read(".gitignore")?);
    let kept_out = read(".dockerignore")?;
    for file in stack.secrets.values() {
        let path = file.trim_start_matches("./");
        let name = path.rsplit('/').next().unwrap_or(path);
        ensure!(maker.contains(&format!(">{name}")), "secrets.sh does not make {name}");
        ensure!(ignored.lines().any(|it| it == format!("/{path}")), "{path} would be committed");
        ensure!(kept_out.lines().any(|it| it == path), "{path} goes into the build of the image");
    }
    Ok(())
}

#[test]
fn the_brokers_can_hold_the_topics_as_the_catalogue_asks() -> Result<()> {
    let stack = Stack::read()?;
    let brokers: Vec<&Service> = stack.brokers().collect();
    let voters: Vec<String> = brokers
        .iter()
        .map(|it| Ok(format!("{}@{}:9093", it.env("KAFKA_NODE_ID")?, it.name)))
        .collect::<Result<_>>()?;
    let in_sync = |topic: &Topic| topic.setting("min.insync.replicas").unwrap_or("1").parse();
    let copies = ALL.iter().map(|topic| topic.replication).max().unwrap_or(1);
    let in_sync = ALL.iter().map(in_sync).collect::<Result<Vec<i32>, _>>()?.into_iter().max();
    let in_sync = in_sync.unwrap_or(1);
    ensure!(
        brokers.len() >= usize::try_from(copies)?,
        "{} brokers, {copies} copies",
        brokers.len()
    );
    ensure!(in_sync < copies, "no broker could be restarted");
    for broker in &brokers {
        let number = |name: &str| -> Result<i32> { Ok(broker.env(name)?.parse()?) };
        ensure!(broker.env("KAFKA_CONTROLLER_QUORUM_VOTERS")? == voters.join(","), "voters");
        ensure!(broker.env("KAFKA_AUTO_CREATE_TOPICS_ENABLE")? == "false", "topics of chance");
        ensure!(broker.env("KAFKA_UNCLEAN_LEADER_ELECTION_ENABLE").is_err(), "unclean");
        for name in [
            "KAFKA_DEFAULT_REPLICATION_FACTOR",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR",
        ] {
            ensure!(number(name)? >= copies, "{name} is below {copies}");
        }
        for name in ["KAFKA_MIN_INSYNC_REPLICAS", "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR"] {
            ensure!(number(name)? >= in_sync, "{name} is below {in_sync}");
        }
        let advertised = format!("PLAINTEXT://{}:9092", broker.name);
        ensure!(broker.env("KAFKA_ADVERTISED_LISTENERS")? == advertised, "{}", broker.name);
        let data = broker.env("KAFKA_LOG_DIRS")?;
        ensure!(broker.volumes.iter().any(|it| it.target == data), "{data} is on no volume");
    }
    let known: BTreeSet<String> = brokers.iter().map(|it| format!("{}:9092", it.name)).collect();
    for service in stack.ours() {
        let named = service.settings()?.text("kafka", "brokers")?;
        let named: BTreeSet<String> = named.split(',').map(str::to_owned).collect();
        ensure!(named == known, "{} asks {named:?}", service.name);
    }
    // Copies as the catalogue says, not fewer.
    ensure!(stack.named("topics")?.command == ["topics", "create"], "topics are made otherwise");
    Ok(())
}

#[test]
fn commands_and_settings_on_the_pages_exist() -> Result<()> {
    let shown: serde_json::Value = serde_json::from_str(&succeed(&["config", "show"], &[])?)?;
    for page in ["README.md", "docs/operations.md", "docs/api.md", "docs/ack-contracts.md"] {
        let text = read(page)?;
        for line in pages::commands(&text) {
            pages::check_command(&line).with_context(|| format!("{page}: {line}"))?;
        }
        for name in pages::settings(&text) {
            ensure!(pages::is_setting(&shown, &name), "{page}: no setting {name}");
        }
        for link in pages::links(&text) {
            pages::check_link(page, &link).with_context(|| format!("{page}: {link}"))?;
        }
    }
    Ok(())
}

#[test]
fn every_http_path_is_on_the_page_about_the_api() -> Result<()> {
    let page = read("docs/api.md")?;
    let routes = pages::routes()?;
    ensure!(routes.len() > 10, "only these routes were found: {routes:?}");
    for path in tollgate_edge::PATHS {
        for path in [format!("`POST {path}`"), format!("`POST /{{secret}}{path}`")] {
            ensure!(page.contains(&path), "{path} is not in docs/api.md");
        }
    }
    for route in routes {
        ensure!(page.contains(&route), "{route} is not in docs/api.md");
    }
    Ok(())
}

#[test]
fn what_a_stopped_consumer_says_is_explained() -> Result<()> {
    use tollgate_stream::consumer::StopReason;
    let page = read("docs/operations.md")?;
    let reasons = [
        (StopReason::MarkMismatch { offset: 7 }, "the record at offset"),
        (StopReason::MarkMismatch { offset: 7 }, "is not the one that was applied last"),
        (
            StopReason::BeyondEnd { next: 7, end: 3 },
            "is to be applied next and the partition ends at",
        ),
        (StopReason::Expired { next: 3, first: 7 }, "retention has removed everything before"),
    ];
    for (reason, words) in reasons {
        ensure!(reason.to_string().contains(words), "it says something else now: {reason}");
        ensure!(page.contains(words), "docs/operations.md does not explain: {words}");
        ensure!(page.contains(&format!("`{}`", reason.label())), "{}", reason.label());
    }
    Ok(())
}

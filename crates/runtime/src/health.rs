//! Liveness, readiness and metrics over HTTP.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use actix_web::{HttpResponse, web};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::listener::get;

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What makes a process ready: that it has started, and every check that a service adds. Cheap to
/// clone.
#[derive(Clone, Default)]
pub struct Health {
    started: Arc<AtomicBool>,
    checks: Arc<RwLock<Vec<(&'static str, Check)>>>,
}

impl Health {
    /// Adds a check that must answer at once. The text of its error is shown to anybody.
    pub fn add(
        &self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.lock_write().push((name, Box::new(check)));
    }

    /// Everything that has to be there is there. Until this is said the process is not ready.
    pub fn started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Names and reasons of the checks that fail.
    pub fn failing(&self) -> Vec<(&'static str, String)> {
        if !self.started.load(Ordering::Acquire) {
            return vec![("process", "starting".to_owned())];
        }
        let checks = self.checks.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        checks.iter().filter_map(|(name, check)| Some((*name, check().err()?))).collect()
    }

    fn lock_write(&self) -> std::sync::RwLockWriteGuard<'_, Vec<(&'static str, Check)>> {
        self.checks.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Routes of the health and metrics listener.
pub fn routes(
    health: Health,
    metrics: PrometheusHandle,
) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    move |config| {
        let health = health.clone();
        let metrics = metrics.clone();
        config
            .service(get("/livez", || async { HttpResponse::Ok().body("alive\n") }))
            .service(get("/readyz", move || ready(health.clone())))
            .service(get("/metrics", move || render(metrics.clone())));
    }
}

async fn ready(health: Health) -> HttpResponse {
    let failing = health.failing();
    if failing.is_empty() {
        return HttpResponse::Ok().body("ready\n");
    }
    let lines: Vec<String> =
        failing.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
    HttpResponse::ServiceUnavailable().body(lines.join("\n") + "\n")
}

async fn render(metrics: PrometheusHandle) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(metrics.render())
}

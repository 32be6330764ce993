//! The bar that is shown while a run goes on.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Shows how far a run has come, or nothing.
#[derive(Debug, Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar on standard error; shows nothing where that is no terminal.
    pub fn bar() -> Self {
        Self(ProgressBar::new(0))
    }

    /// Shows nothing.
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Begins a stage with so many steps.
    pub(crate) fn stage(&self, name: &'static str, steps: u64) {
        self.0.reset();
        self.0.set_length(steps);
        self.0.set_style(style());
        self.0.set_prefix(name);
        self.0.set_message("");
        self.0.enable_steady_tick(Duration::from_millis(200));
    }

    pub(crate) fn at(&self, step: u64, message: String) {
        self.0.set_position(step);
        self.0.set_message(message);
    }

    pub(crate) fn done(&self) {
        self.0.finish_and_clear();
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:>9} {bar:32} {pos}/{len} {elapsed} {msg}")
        // Cannot fail: a test draws it.
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_of_the_bar_is_valid() {
        let template = "{prefix:>9} {bar:32} {pos}/{len} {elapsed} {msg}";
        assert!(ProgressStyle::with_template(template).is_ok());
        let progress = Progress::hidden();
        progress.stage("sending", 3);
        progress.at(1, "2 sent".to_owned());
        progress.done();
    }
}

//! Figures of several rounds.

use std::fmt;

/// Median, least and greatest of some rounds.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    /// `None` without figures.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (least, greatest) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median = if figures.len().is_multiple_of(2) {
            f64::midpoint(figures[middle - 1], figures[middle])
        } else {
            figures[middle]
        };
        Some(Self { median, least, greatest })
    }
}

/// With the precision asked for, two digits behind the point otherwise.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        write!(f, "{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.least, self.greatest)
    }
}

/// A spread for a table, a dash without one.
pub fn text(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| format!("{spread:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_median_in_the_middle() {
        assert!(Spread::of([]).is_none());
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).unwrap().to_string(), "2.00 (1.00–3.00)");
        assert_eq!(format!("{:.1}", Spread::of([4.0, 1.0]).unwrap()), "2.5 (1.0–4.0)");
    }
}

//! A price as a person writes it, and as it is summed.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

/// Micro-units in a unit of currency.
const MICROS: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

/// Price of a started minute of one leg, in micro-units (10^-6) of the currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Micro-units; 0 or more.
    pub micros: i64,
}

impl FromStr for Price {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<Decimal>()
            .ok()
            .and_then(|price| price.checked_mul(MICROS))
            .filter(|micros| micros.fract().is_zero() && !micros.is_sign_negative())
            .and_then(|micros| micros.to_i64())
            .map(|micros| Self { micros })
            .ok_or_else(|| "give a price such as 0.18, with at most six decimals".to_owned())
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Decimal::new(self.micros, 6).normalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_exact_to_the_micro_unit() {
        assert_eq!("0.18".parse::<Price>().unwrap().micros, 180_000);
        assert_eq!("12.000001".parse::<Price>().unwrap().micros, 12_000_001);
        assert_eq!("0.18".parse::<Price>().unwrap().to_string(), "0.18");
        for wrong in ["", "-1", "0.0000001", "cheap", "1e40"] {
            assert!(wrong.parse::<Price>().is_err(), "{wrong}");
        }
    }
}

//! Exact money.
//!
//! A price has at most nine decimals and so is a whole number of 10^-9 units. An amount is then
//! a fraction of two whole numbers, and rounding it is one division: no intermediate value is
//! ever cut, which a division of decimals by 60 would do.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// Nanos in one micro, times the seconds of a minute.
const DENOMINATOR: i128 = 1_000 * 60;
/// Decimals a price may have.
const DECIMALS: u32 = 9;
/// The highest price, in whole units.
const HIGHEST: i64 = 1_000_000;

/// How an amount between two micro-units is rounded. Amounts are never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// To the nearest; a tie goes up.
    HalfUp,
    /// To the nearest; a tie goes to the even one.
    HalfEven,
    /// Up.
    Up,
    /// Down.
    Down,
}

impl Rounding {
    /// Its name in a tariff.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HalfUp => "half_up",
            Self::HalfEven => "half_even",
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    /// `numerator / denominator`, both not negative.
    fn divide(self, numerator: i128, denominator: i128) -> i128 {
        let (quotient, rest) = (numerator / denominator, numerator % denominator);
        let up = match self {
            Self::Down => false,
            Self::Up => rest > 0,
            Self::HalfUp => rest >= denominator - rest,
            Self::HalfEven => {
                rest > denominator - rest || (rest == denominator - rest && quotient % 2 == 1)
            }
        };
        quotient + i128::from(up)
    }
}

/// A price in 10^-9 units of its currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Price(i64);

impl Price {
    pub(crate) const ZERO: Self = Self(0);

    /// Reads plain decimal text: digits, and a point with at most nine digits after it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let plain = |c: char| c.is_ascii_digit() || c == '.';
        if !text.starts_with(|c: char| c.is_ascii_digit())
            || text.ends_with('.')
            || !text.chars().all(plain)
        {
            return Err("must be a decimal in quotes that is not negative, such as \"0.18\"");
        }
        let decimal = Decimal::from_str_exact(text).map_err(|_| "has too many digits")?.normalize();
        if decimal.scale() > DECIMALS {
            return Err("has more than nine decimals");
        }
        if decimal > Decimal::from(HIGHEST) {
            return Err("is more than 1000000");
        }
        let nanos = decimal.mantissa() * 10_i128.pow(DECIMALS - decimal.scale());
        i64::try_from(nanos).map(Self).map_err(|_| "is more than 1000000")
    }

    /// As a decimal, without trailing zeros.
    pub(crate) fn decimal(self) -> Decimal {
        Decimal::new(self.0, DECIMALS).normalize()
    }

    /// `seconds` at this price per minute, and a fee, rounded once to micro-units. `None` when
    /// that is more than 64 bits hold, or `seconds` is negative.
    pub(crate) fn charge(self, seconds: i64, fee: Self, rounding: Rounding) -> Option<i64> {
        if seconds < 0 {
            return None;
        }
        let exact = i128::from(self.0) * i128::from(seconds) + i128::from(fee.0) * 60;
        i64::try_from(rounding.divide(exact, DENOMINATOR)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rust_decimal::RoundingStrategy;

    const MODES: [Rounding; 4] =
        [Rounding::HalfUp, Rounding::HalfEven, Rounding::Up, Rounding::Down];

    #[test]
    fn prices_are_plain_decimals() {
        for (text, nanos) in [
            ("0", 0),
            ("0.18", 180_000_000),
            ("00.180000000000", 180_000_000),
            ("1000000", 1_000_000_000_000_000),
            ("0.000000001", 1),
            ("12", 12_000_000_000),
        ] {
            assert_eq!(Price::parse(text), Ok(Price(nanos)), "{text}");
        }
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1_000",
            "1,5",
            " 1",
            "0.0000000001",
            "1000000.000000001",
            "1.2.3",
            "999999999999999999999999999999999",
            "NaN",
            "١",
        ] {
            assert!(Price::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ties_are_rounded_by_the_stated_mode() {
        // 0.000 000 5 and 0.000 001 5 a minute, for a minute.
        for (mode, expected) in [
            (Rounding::HalfUp, [1, 2]),
            (Rounding::HalfEven, [0, 2]),
            (Rounding::Up, [1, 2]),
            (Rounding::Down, [0, 1]),
        ] {
            for (nanos, micros) in [500, 1_500].into_iter().zip(expected) {
                assert_eq!(Price(nanos).charge(60, Price::ZERO, mode), Some(micros), "{mode:?}");
            }
        }
    }

    #[test]
    fn too_much_money_is_none_and_never_wraps() {
        let highest = Price(1_000_000_000_000_000);
        assert_eq!(highest.charge(i64::MAX, highest, Rounding::Up), None);
        assert_eq!(highest.charge(-1, highest, Rounding::Up), None);
        assert_eq!(highest.charge(60, Price::ZERO, Rounding::Up), Some(1_000_000_000_000));
    }

    proptest! {
        #[test]
        fn a_charge_is_what_decimals_say(
            price in 0..=1_000_000_000_000_i64, fee in 0..=1_000_000_000_000_i64,
            seconds in 0..=1_000_000_i64,
        ) {
            // Sixty times the amount has few enough digits to be exact as a decimal; so is a
            // sixtieth of a micro-unit, in which the comparison is made.
            let sixtyfold = Decimal::new(price, 9) * Decimal::from(seconds)
                + Decimal::new(fee, 9) * Decimal::from(60);
            for mode in MODES {
                let micros = Price(price).charge(seconds, Price(fee), mode).unwrap();
                let error = Decimal::new(micros, 6) * Decimal::from(60) - sixtyfold;
                let unit = Decimal::new(60, 6);
                let fits = match mode {
                    Rounding::Up => error >= Decimal::ZERO && error < unit,
                    Rounding::Down => error <= Decimal::ZERO && -error < unit,
                    Rounding::HalfUp => error * Decimal::TWO <= unit && -error * Decimal::TWO < unit,
                    Rounding::HalfEven => error.abs() * Decimal::TWO <= unit
                        && (error.abs() * Decimal::TWO < unit || micros % 2 == 0),
                };
                prop_assert!(fits, "{mode:?}: {micros} for {sixtyfold}/60");
            }
        }

        #[test]
        fn whole_minutes_round_as_rust_decimal_does(price in 0..=1_000_000_000_i64) {
            for (mode, strategy) in MODES.into_iter().zip([
                RoundingStrategy::MidpointAwayFromZero,
                RoundingStrategy::MidpointNearestEven,
                RoundingStrategy::AwayFromZero,
                RoundingStrategy::ToZero,
            ]) {
                let expected = Decimal::new(price, 9).round_dp_with_strategy(6, strategy);
                let micros = Price(price).charge(60, Price::ZERO, mode).unwrap();
                prop_assert_eq!(Decimal::new(micros, 6), expected);
            }
        }

        #[test]
        fn reading_a_price_never_panics_and_keeps_its_value(text in "[0-9.]{0,25}") {
            if let Ok(price) = Price::parse(&text) {
                prop_assert_eq!(Price::parse(&price.decimal().to_string()), Ok(price));
                prop_assert_eq!(price.decimal(), Decimal::from_str_exact(&text).unwrap());
            }
        }
    }
}

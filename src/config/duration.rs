//! Parser of durations on the command line.

use std::ops::RangeInclusive;
use std::time::Duration;

const UNITS: [(char, f64); 4] = [('s', 1.0), ('m', 60.0), ('h', 3600.0), ('d', 86_400.0)];

/// Parses seconds, or a number followed by `s`, `m`, `h` or `d`. `range` is in seconds; `shown` describes it in the error.
pub(crate) fn within(text: &str, range: RangeInclusive<f64>, shown: &str) -> Result<Duration, String> {
    let unit = UNITS.iter().find_map(|(letter, seconds)| Some((text.strip_suffix(*letter)?, *seconds)));
    let (number, seconds) = unit.unwrap_or((text, 1.0));
    let value = number.parse().ok().map(|number: f64| number * seconds).filter(|value| range.contains(value));
    let wrong = || format!("'{text}' is not a time {shown}; give seconds, or a number with s, m, h or d behind it");
    value.map(Duration::from_secs_f64).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        for (text, seconds) in
            [("30", 30.0), ("0.5", 0.5), ("90s", 90.0), ("5m", 300.0), ("12h", 43_200.0), ("7d", 604_800.0)]
        {
            assert_eq!(within(text, 0.0..=1e6, ""), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_or_out_of_range_is_told_the_range() {
        for text in ["", "s", "soon", "-1", "nan", "inf", "1e300d", "1w", "11", "5ss"] {
            let reason = within(text, 0.0..=10.0, "from 0 to 10 s").expect_err(text);
            assert!(reason.contains("from 0 to 10 s"), "{reason}");
        }
    }
}

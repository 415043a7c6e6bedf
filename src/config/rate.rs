//! Parser of link rates on the command line.

use std::collections::BTreeMap;

use crate::identity::EndpointId;
use crate::limits::{LINK_RATE_MAX_BYTES, LINK_RATE_MIN_BYTES};
use crate::sync::LinkRates;

/// Bytes per second of each unit. Of two units with the same ending the longer one comes first.
const UNITS: [(&str, f64); 7] =
    [("kbit", 125.0), ("mbit", 125e3), ("gbit", 125e6), ("bit", 0.125), ("kB", 1e3), ("MB", 1e6), ("B", 1.0)];

/// Parses rates for all links (`64kbit`) and for single peers (`ID=2mbit`). Each text may hold several, separated by commas.
pub(super) fn parse_all<'a>(texts: impl Iterator<Item = &'a str>) -> Result<LinkRates, String> {
    let mut rates = LinkRates::default();
    for text in texts.flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty()) {
        let earlier = match text.split_once('=') {
            Some((id, text)) => one_peer(&mut rates.peers, id, text)?,
            None => rates.all.replace(rate(text)?),
        };
        if earlier.is_some() {
            return Err(format!("'{text}' is the second rate for the same"));
        }
    }
    Ok(rates)
}

fn one_peer(peers: &mut BTreeMap<EndpointId, u64>, id: &str, text: &str) -> Result<Option<u64>, String> {
    let id = id.parse::<EndpointId>().map_err(|cause| cause.to_string())?;
    Ok(peers.insert(id, rate(text)?))
}

/// Parses one rate into bytes per second.
fn rate(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let unit = UNITS.iter().find_map(|(unit, bytes)| {
        // Units of bits are accepted in any case; `B` and `b` differ, so units of bytes are not.
        let number = if unit.ends_with("bit") { lower.strip_suffix(unit) } else { text.strip_suffix(unit) };
        Some((number?, *bytes))
    });
    let value = unit.and_then(|(number, bytes)| number.trim().parse::<f64>().ok().map(|number| number * bytes));
    let fits = |value: &f64| (LINK_RATE_MIN_BYTES as f64..=LINK_RATE_MAX_BYTES as f64).contains(value);
    let wrong = || {
        format!(
            "'{text}' is not a rate from 8kbit to 100gbit; give a number with bit, kbit, mbit, gbit, B, kB or MB behind it"
        )
    };
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    value.filter(fits).map(|value| value as u64).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_in_bits_or_bytes_a_second() {
        for (text, bytes) in [
            ("64kbit", 8_000),
            ("64Kbit", 8_000),
            ("2mbit", 250_000),
            ("1.5Mbit", 187_500),
            ("1gbit", 125_000_000),
            ("9600bit", 1_200),
            ("8kB", 8_000),
            ("1MB", 1_000_000),
            ("4096B", 4_096),
        ] {
            assert_eq!(rate(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_rate_without_a_unit_or_out_of_range_is_told_what_is_one() {
        for text in ["", "64", "kbit", "64kb", "64 mbps", "-1kbit", "nanbit", "1bit", "101gbit", "infbit"] {
            let reason = rate(text).expect_err(text);
            assert!(reason.contains("8kbit"), "{reason}");
        }
    }

    #[test]
    fn all_links_have_one_rate_and_single_peers_another() {
        let (id, text) = (EndpointId([0xaa; 32]), "a".repeat(64));
        let rates = parse_all([format!("64kbit,{text}=2mbit").as_str()].into_iter()).expect("valid");
        assert_eq!((rates.of(&EndpointId([1; 32])), rates.of(&id)), (Some(8_000), Some(250_000)));
        assert_eq!(parse_all(std::iter::empty()).expect("valid"), LinkRates::default());
        for twice in ["64kbit,65kbit".to_owned(), format!("{text}=64kbit,{text}=1mbit"), "b=64kbit".to_owned()] {
            parse_all([twice.as_str()].into_iter()).expect_err(&twice);
        }
    }
}

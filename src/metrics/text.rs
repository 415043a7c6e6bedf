//! Writer of Prometheus' text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).

use std::fmt::{self, Write as _};

use super::histogram::{BOUNDS_MICROS, Histogram};

/// Type of a metric.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MetricKind {
    /// A value that only grows, from the node's start.
    Counter,
    /// The current value.
    Gauge,
    /// Durations by bucket.
    Histogram,
}

/// A sample value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Value {
    /// A plain number.
    Number(u64),
    /// Microseconds, written as seconds.
    Micros(i64),
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::Number(number as u64)
    }
}

impl From<bool> for Value {
    fn from(holds: bool) -> Value {
        Value::Number(holds.into())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => write!(f, "{number}"),
            Value::Micros(micros) => {
                let (sign, micros) = (if *micros < 0 { "-" } else { "" }, micros.unsigned_abs());
                write!(f, "{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000)
            }
        }
    }
}

/// The output, one family after the other.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a family; `name` lacks the common prefix `peat_node_`.
    pub fn family(&mut self, name: &'static str, kind: MetricKind, help: &str) -> Family<'_> {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        self.put(&["# HELP peat_node_", name, " ", help, "\n# TYPE peat_node_", name, " ", kind, "\n"]);
        Family { text: self, name }
    }

    /// Writes a family of one sample.
    pub fn single(&mut self, name: &'static str, kind: MetricKind, help: &str, value: impl Into<Value>) {
        self.family(name, kind, help).sample(&[], value.into());
    }

    /// Returns the complete output.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }

    fn put(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.0.push_str(part));
    }

    fn value(&mut self, value: Value) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, " {value}");
    }
}

/// A family with samples being written.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut Text,
    name: &'static str,
}

impl Family<'_> {
    /// Writes one sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: Value) {
        self.name("", labels, None);
        self.text.value(value);
    }

    /// Writes the samples of a histogram.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let bounds = BOUNDS_MICROS.map(|bound| Value::Micros(i64::try_from(bound).unwrap_or(i64::MAX)).to_string());
        let bounds = bounds.iter().map(|bound| bound.trim_end_matches('0').trim_end_matches('.')).chain(["+Inf"]);
        let mut all = 0;
        for (bound, count) in bounds.zip(histogram.cumulated()) {
            self.name("_bucket", labels, Some(bound));
            self.text.value(Value::Number(count));
            all = count;
        }
        self.name("_sum", labels, None);
        self.text.value(Value::Micros(i64::try_from(histogram.sum_micros()).unwrap_or(i64::MAX)));
        self.name("_count", labels, None);
        self.text.value(Value::Number(all));
    }

    fn name(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>) {
        self.text.put(&["peat_node_", self.name, suffix]);
        let labels = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut before = "{";
        for (name, value) in labels {
            self.text.put(&[before, name, "=\""]);
            for character in value.chars() {
                match character {
                    '\\' => self.text.0.push_str("\\\\"),
                    '"' => self.text.0.push_str("\\\""),
                    '\n' => self.text.0.push_str("\\n"),
                    other => self.text.0.push(other),
                }
            }
            self.text.0.push('"');
            before = ",";
        }
        if before == "," {
            self.text.0.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn values_are_in_base_units_and_labels_may_say_anything() {
        let mut text = Text::default();
        text.single("documents", MetricKind::Gauge, "Live documents.", 7_u64);
        let mut family = text.family("peer_clock_skew_seconds", MetricKind::Gauge, "Its clock minus ours.");
        family.sample(&[("peer", "a\"\\\nb")], Value::Micros(-1_500_000));
        assert_eq!(
            text.finish(),
            "# HELP peat_node_documents Live documents.\n# TYPE peat_node_documents gauge\npeat_node_documents 7\n\
             # HELP peat_node_peer_clock_skew_seconds Its clock minus ours.\n\
             # TYPE peat_node_peer_clock_skew_seconds gauge\n\
             peat_node_peer_clock_skew_seconds{peer=\"a\\\"\\\\\\nb\"} -1.500000\n"
        );
    }

    #[test]
    fn buckets_are_cumulated_and_their_bounds_belong_to_them() {
        let histogram = Histogram::default();
        for micros in [1, 100, 101, 20_000_000] {
            histogram.note(Duration::from_micros(micros));
        }
        let mut text = Text::default();
        text.family("turn_seconds", MetricKind::Histogram, "Turns.").histogram(&[("thread", "api")], &histogram);
        let text = text.finish();
        let lines: Vec<&str> =
            text.lines().skip(2).map(|line| line.trim_start_matches("peat_node_turn_seconds")).collect();
        assert_eq!(lines[0], "_bucket{thread=\"api\",le=\"0.0001\"} 2");
        assert_eq!(lines[1], "_bucket{thread=\"api\",le=\"0.001\"} 3");
        assert_eq!(lines[7], "_bucket{thread=\"api\",le=\"10\"} 3");
        assert_eq!(
            lines[8..],
            ["_bucket{thread=\"api\",le=\"+Inf\"} 4", "_sum{thread=\"api\"} 20.000202", "_count{thread=\"api\"} 4"]
        );
    }
}

//! Metrics of calls: their number by method and code, and the durations of unary ones.

use std::time::Duration;

use peat_ipc::method::AGENT_LINK;
use peat_ipc::{Code, Method};

use super::{Figure, Histogram, MetricKind, Text};

/// Size of a table by method number. Index 0 counts methods that do not exist.
const METHODS: usize = AGENT_LINK as usize + 1;

#[derive(Debug, Default)]
struct Calls {
    /// Number of calls by code; 0 is success.
    codes: [Figure; Code::ALL.len() + 1],
    durations: Histogram,
}

/// Metrics of all methods; see the module's documentation.
#[derive(Debug)]
pub struct Rpcs(Vec<Calls>);

impl Default for Rpcs {
    fn default() -> Rpcs {
        Rpcs((0..METHODS).map(|_| Calls::default()).collect())
    }
}

impl Rpcs {
    /// Records the end of a call of `method`, with `code` if it failed, after `duration`. Streams have no duration.
    pub fn note(&self, method: u32, code: Option<Code>, duration: Duration) {
        let Some(calls) = usize::try_from(method).ok().and_then(|number| self.0.get(number)).or(self.0.first()) else {
            return;
        };
        calls.codes[code.map_or(0, |code| code.number() as usize)].add(1);
        if !is_stream(method) {
            calls.durations.note(duration);
        }
    }

    /// Writes both metric families, for the methods that were called.
    pub fn show(&self, text: &mut Text) {
        let mut family = text.family("rpcs_total", MetricKind::Counter, "Calls that ended, by method and code.");
        for (number, calls) in self.0.iter().enumerate() {
            for (code, count) in calls.codes.iter().enumerate().filter(|(_, count)| count.get() > 0) {
                let code = if code == 0 { "OK" } else { Code::ALL[code - 1].name() };
                family.sample(&[("method", name(number)), ("code", code)], count.get().into());
            }
        }
        let help = "How long unary calls took, from the request to its answer.";
        let mut family = text.family("rpc_duration_seconds", MetricKind::Histogram, help);
        for (number, calls) in self.0.iter().enumerate().filter(|(_, calls)| !calls.durations.is_empty()) {
            family.histogram(&[("method", name(number))], &calls.durations);
        }
    }
}

fn is_stream(method: u32) -> bool {
    method == AGENT_LINK || Method::from_number(method).is_some_and(Method::is_stream)
}

fn name(number: usize) -> &'static str {
    match Method::ALL.get(number.wrapping_sub(1)) {
        Some(method) => method.name(),
        None if number == AGENT_LINK as usize => "AgentLink.Connect",
        None => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_code_and_streams_have_no_duration() {
        let rpcs = Rpcs::default();
        rpcs.note(Method::GetStatus.number(), None, Duration::ZERO);
        rpcs.note(Method::GetStatus.number(), Some(Code::Unauthenticated), Duration::ZERO);
        rpcs.note(Method::Subscribe.number(), Some(Code::Cancelled), Duration::from_secs(60));
        rpcs.note(AGENT_LINK, None, Duration::ZERO);
        rpcs.note(4_000_000_000, Some(Code::Unimplemented), Duration::ZERO);
        let mut text = Text::default();
        rpcs.show(&mut text);
        let text = text.finish();
        for line in [
            "rpcs_total{method=\"GetStatus\",code=\"OK\"} 1",
            "rpcs_total{method=\"GetStatus\",code=\"UNAUTHENTICATED\"} 1",
            "rpcs_total{method=\"Subscribe\",code=\"CANCELLED\"} 1",
            "rpcs_total{method=\"AgentLink.Connect\",code=\"OK\"} 1",
            "rpcs_total{method=\"unknown\",code=\"UNIMPLEMENTED\"} 1",
            "rpc_duration_seconds_count{method=\"GetStatus\"} 2",
        ] {
            assert!(text.contains(&format!("peat_node_{line}\n")), "{line}: {text}");
        }
        assert!(!text.contains("rpc_duration_seconds_count{method=\"Subscribe\"}"));
    }
}

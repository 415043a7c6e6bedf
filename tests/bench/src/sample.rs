//! Medians, and interleaved measurements, so that noise affects all contenders alike.

use std::time::Instant;

use bench_peers::{Caller, Failure};

/// Returns the median.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 50)
}

/// Returns the value that `percent` of all values do not exceed.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Returns the duration of `work` in seconds.
pub(crate) fn timed<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<f64, Failure> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Returns the median of `times` figures.
pub(crate) fn median_of(times: usize, mut one: impl FnMut() -> Result<f64, Failure>) -> Result<f64, Failure> {
    let figures = (0..times).map(|_| one()).collect::<Result<Vec<_>, _>>()?;
    Ok(median(&figures))
}

/// The figures of one contender, one per round. Ratios are formed within a round, so that noise cancels out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(Vec<f64>);

impl Rounds {
    pub(crate) fn figure(&self) -> f64 {
        median(&self.0)
    }

    /// Returns the median over rounds of `combine` applied to both figures.
    pub(crate) fn with(&self, other: &Rounds, combine: impl Fn(f64, f64) -> f64) -> f64 {
        median(&self.0.iter().zip(&other.0).map(|(ours, theirs)| combine(*ours, *theirs)).collect::<Vec<_>>())
    }

    /// Returns the median of the rounds' ratios.
    pub(crate) fn over(&self, other: &Rounds) -> f64 {
        self.with(other, |ours, theirs| ours / theirs)
    }
}

/// A measurement that yields one figure per round.
pub(crate) type Contender<'a> = Box<dyn FnMut() -> Result<f64, Failure> + 'a>;

/// Runs all contenders in turn, `rounds` times, after one warm-up round.
pub(crate) fn compete(rounds: usize, contenders: &mut [Contender<'_>]) -> Result<Vec<Rounds>, Failure> {
    let mut results = vec![Rounds::default(); contenders.len()];
    for round in 0..=rounds {
        for (contender, result) in contenders.iter_mut().zip(&mut results) {
            let figure = contender()?;
            if round > 0 {
                result.0.push(figure);
            }
        }
    }
    Ok(results)
}

/// Returns the median duration of `calls` sequential calls, in seconds.
pub(crate) fn latency(caller: &mut dyn Caller, calls: usize) -> Result<f64, Failure> {
    let mut took = Vec::with_capacity(calls);
    caller.one_by_one(calls, &mut took)?;
    Ok(median(&took.iter().map(std::time::Duration::as_secs_f64).collect::<Vec<_>>()))
}

/// Returns calls per second with `width` of them in flight.
pub(crate) fn rate(caller: &mut dyn Caller, calls: usize, width: usize) -> Result<f64, Failure> {
    let whole = calls.next_multiple_of(width);
    Ok(whole as f64 / caller.in_flight(whole, width)?.as_secs_f64())
}

//! The table: one line per figure, with its comparison and its verdict.

use std::fmt;

/// A measured quantity, formatted for people.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Figure {
    Seconds(f64),
    PerSecond(f64),
    Bytes(f64),
    Count(f64),
    Times(f64),
}

impl Figure {
    fn value(self) -> f64 {
        match self {
            Figure::Seconds(value)
            | Figure::PerSecond(value)
            | Figure::Bytes(value)
            | Figure::Count(value)
            | Figure::Times(value) => value,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Figure::Seconds(value) if value < 0.001 => format!("{:.1} µs", value * 1e6),
            Figure::Seconds(value) if value < 1.0 => format!("{:.2} ms", value * 1e3),
            Figure::Seconds(value) => format!("{value:.2} s"),
            Figure::PerSecond(value) => format!("{value:.0}/s"),
            Figure::Bytes(value) if value < 10e3 => format!("{value:.0} B"),
            Figure::Bytes(value) if value < 10e6 => format!("{:.1} KiB", value / 1024.0),
            Figure::Bytes(value) => format!("{:.2} MiB", value / 1_048_576.0),
            Figure::Count(value) => format!("{value:.0}"),
            Figure::Times(value) => format!("{value:.2} ×"),
        };
        out.pad(&text)
    }
}

/// The target of a line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtMost(Figure),
    AtLeast(Figure),
}

impl Target {
    pub(crate) fn at_most_times(times: f64) -> Target {
        Target::AtMost(Figure::Times(times))
    }

    pub(crate) fn at_least_times(times: f64) -> Target {
        Target::AtLeast(Figure::Times(times))
    }

    /// Returns the ratio by which `value` meets the target: 1 is just met, 0.5 misses it by a factor of two.
    fn margin(self, value: f64) -> f64 {
        match self {
            // A difference of two medians may be negative, and the limit may be zero.
            Target::AtMost(limit) => limit.value().max(f64::MIN_POSITIVE) / value.max(f64::MIN_POSITIVE),
            Target::AtLeast(limit) => value / limit.value(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&match self {
            Target::AtMost(limit) => format!("≤ {limit}"),
            Target::AtLeast(limit) => format!("≥ {limit}"),
        })
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Ok,
    /// The target is missed by less than a factor of two.
    Miss,
    /// A strict target is missed, or another one by more than a factor of two.
    Fail,
    /// The row could not be measured.
    Broken,
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Line {
    what: String,
    figure: String,
    compared: String,
    ratio: String,
    target: String,
    verdict: Verdict,
}

impl Line {
    /// Creates a line judged by its ratio to a figure of the same run.
    pub(crate) fn relative(
        what: impl Into<String>,
        figure: Figure,
        with: (&str, Figure),
        ratio: f64,
        target: Target,
    ) -> Line {
        Line {
            what: what.into(),
            figure: figure.to_string(),
            compared: format!("{} {}", with.0, with.1),
            ratio: Figure::Times(ratio).to_string(),
            target: target.to_string(),
            verdict: judge(target.margin(ratio)),
        }
    }

    /// Creates a line judged by its own value.
    pub(crate) fn absolute(what: impl Into<String>, figure: Figure, target: Target) -> Line {
        Line {
            what: what.into(),
            figure: figure.to_string(),
            compared: String::new(),
            ratio: String::new(),
            target: target.to_string(),
            verdict: judge(target.margin(figure.value())),
        }
    }

    /// Creates a line for a row that could not be measured.
    pub(crate) fn broken(row: &str, cause: &str) -> Line {
        Line {
            what: row.into(),
            figure: String::new(),
            compared: format!("not measured: {cause}"),
            ratio: String::new(),
            target: String::new(),
            verdict: Verdict::Broken,
        }
    }

    /// Adds the figure that it is compared with, for the reader.
    pub(crate) fn beside(mut self, what: impl Into<String>) -> Line {
        self.compared = what.into();
        self
    }

    /// Makes the target strict: a miss is a failure.
    pub(crate) fn strict(mut self) -> Line {
        if self.verdict == Verdict::Miss {
            self.verdict = Verdict::Fail;
        }
        self
    }
}

fn judge(margin: f64) -> Verdict {
    match margin {
        _ if margin >= 1.0 => Verdict::Ok,
        _ if margin >= 0.5 => Verdict::Miss,
        _ => Verdict::Fail,
    }
}

/// All lines.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Line>);

const HEADS: [&str; 6] = ["row", "figure", "compared with", "ratio", "target", ""];

impl Table {
    pub(crate) fn push(&mut self, line: Line) {
        eprintln!("    {}", Table::cells(&line).join("  "));
        self.0.push(line);
    }

    /// Returns true if no line failed.
    pub(crate) fn may_stand(&self) -> bool {
        self.0.iter().all(|line| matches!(line.verdict, Verdict::Ok | Verdict::Miss))
    }

    fn cells(line: &Line) -> [&str; 6] {
        let verdict = match line.verdict {
            Verdict::Ok => "ok",
            Verdict::Miss => "MISS",
            Verdict::Fail => "MISS, FAIL",
            Verdict::Broken => "BROKEN, FAIL",
        };
        [&line.what, &line.figure, &line.compared, &line.ratio, &line.target, verdict]
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = [HEADS].into_iter().chain(self.0.iter().map(Table::cells)).collect();
        let width = |column: usize| rows.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..HEADS.len()).map(width).collect();
        for (number, cells) in rows.iter().enumerate() {
            write_row(out, cells, &widths)?;
            if number == 0 {
                let rule: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
                write_row(out, &rule, &widths)?;
            }
        }
        Ok(())
    }
}

fn write_row(out: &mut fmt::Formatter<'_>, cells: &[impl AsRef<str>], widths: &[usize]) -> fmt::Result {
    for (cell, width) in cells.iter().zip(widths) {
        write!(out, "| {:<width$} ", cell.as_ref())?;
    }
    writeln!(out, "|")
}

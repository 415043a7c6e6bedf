//! Progress of an agent that executes a command: text and percentage, in the record that its result will replace.
//!
//! It carries a number, so that the newer of two copies wins in any order of merges and without a clock.

use serde_json::json;

use super::{CommandResult, Progress, Rank};
use crate::limits::COMMAND_PROGRESS_BYTES;
use crate::store::Key;

/// Content of [`CommandResult::result`] while the rank is executing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Words {
    /// Number of progress reports by this agent on this command, as known to the node that wrote it.
    pub(crate) number: u64,
    pub(crate) percent: u32,
    pub(crate) words: String,
}

impl Words {
    /// Parses the form that nodes write, or returns `None`.
    pub(crate) fn parse(text: &str) -> Option<Words> {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        let percent = value["percent"].as_u64().filter(|percent| *percent <= 100)?;
        let words = value["progress"].as_str().filter(|words| words.len() <= COMMAND_PROGRESS_BYTES)?;
        let number = value["number"].as_u64()?;
        Some(Words { number, percent: u32::try_from(percent).unwrap_or(100), words: words.to_owned() })
    }
}

impl CommandResult {
    pub(crate) fn in_progress(key: &Key, number: u64, said: &Progress) -> CommandResult {
        let words = json!({ "number": number, "percent": said.percent.min(100), "progress": said.words });
        CommandResult::new(key, Rank::Executing, words.to_string(), String::new())
    }

    /// Returns the progress and its number; `None` once the target has ended.
    #[must_use]
    pub(crate) fn words(&self) -> Option<Words> {
        if self.rank == Rank::Executing { Words::parse(&self.result) } else { None }
    }

    /// Returns the text and percentage of a target that executes; `None` once it has ended.
    #[must_use]
    pub fn progress(&self) -> Option<(String, u32)> {
        self.words().map(|words| (words.words, words.percent))
    }

    pub(crate) fn progress_number(&self) -> u64 {
        self.words().map_or(0, |words| words.number)
    }
}

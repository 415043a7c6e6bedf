//! How far an agent is with a command it runs: words and percent, in the record its result will take the place of.
//!
//! The words carry a number, so that of two copies the newer one is kept everywhere whatever their order, and no clock decides.

use serde_json::json;

use super::{CommandResult, Progress, Rank};
use crate::limits::COMMAND_PROGRESS_BYTES;
use crate::store::Key;

/// What [`CommandResult::result`] holds while the rank is executing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Words {
    /// Counts what was said of this command by this agent, as far as the node that wrote it knew.
    pub(crate) number: u64,
    pub(crate) percent: u32,
    pub(crate) words: String,
}

impl Words {
    /// `None`: it is none of a form a node writes.
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

    /// How far it is; `None` when it is over.
    #[must_use]
    pub(crate) fn words(&self) -> Option<Words> {
        if self.rank == Rank::Executing { Words::parse(&self.result) } else { None }
    }

    /// Words and percent of what is executing; `None` when it is over.
    #[must_use]
    pub fn progress(&self) -> Option<(String, u32)> {
        self.words().map(|words| (words.words, words.percent))
    }

    pub(crate) fn progress_number(&self) -> u64 {
        self.words().map_or(0, |words| words.number)
    }
}

//! Reasons to refuse a text as a document's JSON, with their position.

use std::fmt;

use crate::limits::{DOCUMENT_JSON_BYTES, JSON_NESTING_LEVELS};

/// A refused text: the problem and its position.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JsonError {
    /// Problem that was found.
    pub problem: Problem,
    /// JSON pointer (RFC 6901) to the value; empty for the document itself.
    pub path: String,
    /// Offset in the text at which the problem was found, in bytes.
    pub offset: usize,
}

/// Problem of a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Problem {
    /// The bytes are not UTF-8.
    NotUtf8,
    /// The text is not JSON; this was expected.
    Syntax(&'static str),
    /// The text is JSON, but not an object.
    NotAnObject,
    /// The key occurs twice in one object.
    RepeatedKey(String),
    /// There are more levels than [`JSON_NESTING_LEVELS`].
    TooDeep,
    /// The nearest `f64` to the number is infinite, or is zero although the number is not.
    OutsideF64(String),
    /// The integer is outside `i64` and `u64`.
    OutsideIntegers(String),
    /// The text exceeds [`DOCUMENT_JSON_BYTES`].
    TooLarge { bytes: usize },
}

impl JsonError {
    pub(super) fn new(problem: Problem, offset: usize) -> JsonError {
        JsonError { problem, path: String::new(), offset }
    }

    /// Returns the error with its path extended by the enclosing key or index.
    #[must_use]
    pub(super) fn within(mut self, step: &str) -> JsonError {
        let step = step.replace('~', "~0").replace('/', "~1");
        self.path.insert_str(0, &step);
        self.path.insert(0, '/');
        self
    }
}

/// Maximum length of a quotation in a message, in characters.
const SHOWN_CHARS: usize = 40;

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.problem)?;
        if !self.path.is_empty() {
            write!(f, ", under {:?}", shown(&self.path))?;
        }
        write!(f, ", at byte {}", self.offset)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::NotUtf8 => write!(f, "the text is not UTF-8"),
            Problem::Syntax(expected) => write!(f, "not JSON: expected {expected}"),
            Problem::NotAnObject => write!(f, "a document is a JSON object, this is another value"),
            Problem::RepeatedKey(key) => write!(f, "the key {:?} stands twice in one object", shown(key)),
            Problem::TooDeep => {
                write!(f, "objects and arrays nest deeper than the limit of {JSON_NESTING_LEVELS} levels")
            }
            Problem::OutsideF64(number) => {
                write!(f, "the number {} is outside what a 64-bit float can hold", shown(number))
            }
            Problem::OutsideIntegers(number) => {
                let number = shown(number);
                write!(
                    f,
                    "the integer {number} does not fit 64 bits; send it as a string, or with an exponent as a float"
                )
            }
            Problem::TooLarge { bytes } => {
                write!(f, "the text is {bytes} bytes, the limit is {DOCUMENT_JSON_BYTES} (white space not counted)")
            }
        }
    }
}

impl std::error::Error for JsonError {}

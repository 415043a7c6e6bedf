//! Why a text is not a document's JSON, and where in it.

use std::fmt;

use crate::limits::{DOCUMENT_JSON_BYTES, JSON_NESTING_LEVELS};

/// A text that was refused: what is wrong, under which key, at which byte.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JsonError {
    /// What is wrong.
    pub problem: Problem,
    /// Where, as a JSON pointer (RFC 6901); empty for the document itself.
    pub path: String,
    /// The byte of the text at which it showed.
    pub offset: usize,
}

/// What is wrong with a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Problem {
    /// The bytes are not UTF-8.
    NotUtf8,
    /// Not JSON: what was expected.
    Syntax(&'static str),
    /// JSON, but not an object.
    NotAnObject,
    /// This key stands twice in one object.
    RepeatedKey(String),
    /// More levels than [`JSON_NESTING_LEVELS`].
    TooDeep,
    /// The nearest `f64` to this number is infinite, or zero although the number is not.
    OutsideF64(String),
    /// This integer is outside `i64` and `u64`.
    OutsideIntegers(String),
    /// Larger than [`DOCUMENT_JSON_BYTES`].
    TooLarge { bytes: usize },
}

impl JsonError {
    pub(super) fn new(problem: Problem, offset: usize) -> JsonError {
        JsonError { problem, path: String::new(), offset }
    }

    /// The same error seen from one level further out.
    #[must_use]
    pub(super) fn within(mut self, step: &str) -> JsonError {
        let step = step.replace('~', "~0").replace('/', "~1");
        self.path.insert_str(0, &step);
        self.path.insert(0, '/');
        self
    }
}

/// At most this much of a text is repeated in a message.
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

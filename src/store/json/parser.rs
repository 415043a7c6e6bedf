//! A strict JSON (RFC 8259) parser.
//!
//! The common parsers silently let the last of two equal keys win and round long integers.

use serde_json::{Map, Number, Value};

use super::error::{JsonError, Problem};
use crate::limits::JSON_NESTING_LEVELS;

pub(super) struct Parser<'a> {
    text: &'a str,
    at: usize,
    white: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Parser<'a> {
        Parser { text, at: 0, white: 0 }
    }

    /// Returns the length of the text read so far, without the white space between tokens.
    pub(super) fn bytes_without_white_space(&self) -> usize {
        self.at - self.white
    }

    /// Parses the whole text, which must be one object.
    pub(super) fn document(&mut self) -> Result<Map<String, Value>, JsonError> {
        self.skip_white();
        let start = self.at;
        let value = self.value(1)?;
        self.skip_white();
        if self.at < self.text.len() {
            return Err(self.syntax("nothing after the document"));
        }
        match value {
            Value::Object(map) => Ok(map),
            _ => Err(JsonError::new(Problem::NotAnObject, start)),
        }
    }

    fn value(&mut self, level: usize) -> Result<Value, JsonError> {
        match self.peek() {
            Some(b'{') => self.object(level).map(Value::Object),
            Some(b'[') => self.array(level).map(Value::Array),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err(self.syntax("a value")),
        }
    }

    fn object(&mut self, level: usize) -> Result<Map<String, Value>, JsonError> {
        self.open(level)?;
        let mut map = Map::new();
        if self.take(b'}') {
            return Ok(map);
        }
        loop {
            let start = self.at;
            let key = self.string()?;
            self.skip_white();
            self.expect(b':', "a colon")?;
            if map.contains_key(&key) {
                return Err(JsonError::new(Problem::RepeatedKey(key), start));
            }
            let value = self.value(level + 1).map_err(|cause| cause.within(&key))?;
            map.insert(key, value);
            if self.ends(b'}', "a comma or a closing brace")? {
                return Ok(map);
            }
        }
    }

    fn array(&mut self, level: usize) -> Result<Vec<Value>, JsonError> {
        self.open(level)?;
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(items);
        }
        loop {
            let value = self.value(level + 1).map_err(|cause| cause.within(&items.len().to_string()))?;
            items.push(value);
            if self.ends(b']', "a comma or a closing bracket")? {
                return Ok(items);
            }
        }
    }

    /// Reads the opening bracket or brace of a container at `level`.
    fn open(&mut self, level: usize) -> Result<(), JsonError> {
        if level > JSON_NESTING_LEVELS {
            return Err(JsonError::new(Problem::TooDeep, self.at));
        }
        self.at += 1;
        self.skip_white();
        Ok(())
    }

    /// Reads the separator after an element. Returns true at the end of the container, false if another element must follow.
    fn ends(&mut self, close: u8, expected: &'static str) -> Result<bool, JsonError> {
        self.skip_white();
        if self.take(close) {
            return Ok(true);
        }
        self.expect(b',', expected)?;
        Ok(false)
    }

    fn string(&mut self) -> Result<String, JsonError> {
        if !self.take(b'"') {
            return Err(self.syntax("a string"));
        }
        let mut out = String::new();
        loop {
            let start = self.at;
            self.at += self.rest().bytes().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)).count();
            out.push_str(&self.text[start..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.syntax("control characters to be escaped")),
                None => return Err(self.syntax("a closing quote")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let letter = self.text.as_bytes().get(self.at + 1).copied();
        let plain = match letter {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.code_point(),
            _ => return Err(self.syntax("an escape")),
        };
        self.at += 2;
        Ok(plain)
    }

    /// Reads `\uXXXX`, or two of them that form a surrogate pair.
    fn code_point(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        let whole = "a \\u escape of a whole character";
        let first = self.unit()?;
        let code = match first {
            0xd800..0xdc00 => match self.unit()? {
                second @ 0xdc00..0xe000 => 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00),
                _ => return Err(JsonError::new(Problem::Syntax(whole), start)),
            },
            other => other,
        };
        char::from_u32(code).ok_or(JsonError::new(Problem::Syntax(whole), start))
    }

    fn unit(&mut self) -> Result<u32, JsonError> {
        let digits = self.rest().strip_prefix("\\u").and_then(|rest| rest.get(..4));
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let unit =
            unit.ok_or_else(|| self.syntax("a \\u escape of four hex digits, low surrogates after high ones"))?;
        self.at += 6;
        Ok(unit)
    }

    fn number(&mut self) -> Result<Number, JsonError> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        let mut integer = true;
        if self.take(b'.') {
            integer = false;
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            integer = false;
            let _sign = self.take(b'-') || self.take(b'+');
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        let read = if integer { exact_integer(text) } else { float(text) };
        read.map_err(|problem| JsonError::new(problem, start))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let count = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        self.at += count;
        if count == 0 { Err(self.syntax("a digit")) } else { Ok(()) }
    }

    fn word(&mut self, word: &'static str, value: Value) -> Result<Value, JsonError> {
        if !self.rest().starts_with(word) {
            return Err(self.syntax("a value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Reads `byte` if it comes next; returns true if it did.
    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// Reads `byte` and the white space after it.
    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), JsonError> {
        if !self.take(byte) {
            return Err(self.syntax(expected));
        }
        self.skip_white();
        Ok(())
    }

    fn skip_white(&mut self) {
        let count = self.rest().bytes().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.at += count;
        self.white += count;
    }

    fn syntax(&self, expected: &'static str) -> JsonError {
        JsonError::new(Problem::Syntax(expected), self.at)
    }
}

/// Parses an integer of 64 bits, with or without a sign. `-0` is a float, because no integer keeps its sign.
fn exact_integer(text: &str) -> Result<Number, Problem> {
    if text == "-0" {
        return float(text);
    }
    let number = text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from));
    number.map_err(|_| Problem::OutsideIntegers(text.to_owned()))
}

/// Returns the nearest `f64`, unless that is infinite, or is zero although the number is not.
fn float(text: &str) -> Result<Number, Problem> {
    let digits = text.split(['e', 'E']).next().unwrap_or_default();
    let is_zero = !digits.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    let nearest = text.parse::<f64>().ok().filter(|number| is_zero || *number != 0.0);
    nearest.and_then(Number::from_f64).ok_or_else(|| Problem::OutsideF64(text.to_owned()))
}

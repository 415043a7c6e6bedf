//! Lenient reader of protobuf's JSON: names in camelCase or snake_case, absent fields and nulls for defaults, 64-bit integers
//! as strings, enums as names or numbers.
//!
//! Every spelling of a message reads the same, so that an agent with a different spelling does not look changed.

use serde_json::{Map, Number, Value};

/// Reader of the fields of one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a>(&'a Map<String, Value>);

/// Description of an invalid field.
pub(super) type Wrong = String;

impl<'a> Message<'a> {
    pub(super) fn of(value: &'a Value, what: &str) -> Result<Message<'a>, Wrong> {
        value.as_object().map(Message).ok_or_else(|| format!("{what} is not an object"))
    }

    /// Returns the field named `name` in camelCase, unless it is absent or null.
    fn get(self, name: &str) -> Option<&'a Value> {
        let field = self.0.get(name).or_else(|| self.0.get(&snake(name)));
        field.filter(|value| !value.is_null())
    }

    /// Returns a string; empty if absent.
    pub(super) fn text(self, name: &str) -> Result<&'a str, Wrong> {
        match self.get(name) {
            None => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(format!("'{name}' is not a string")),
        }
    }

    /// Returns a string, or the number (of an enum) or boolean that some agents use in its place.
    pub(super) fn plain(self, name: &str) -> Result<Value, Wrong> {
        match self.get(name) {
            None => Ok("".into()),
            Some(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => Ok(value.clone()),
            Some(_) => Err(format!("'{name}' is neither text nor a number")),
        }
    }

    /// Returns an integer, which may be in a string; 0 if absent.
    pub(super) fn integer(self, name: &str) -> Result<i64, Wrong> {
        let wrong = || format!("'{name}' is not a 64-bit integer");
        match self.get(name) {
            None => Ok(0),
            Some(Value::Number(number)) => whole(number).ok_or_else(wrong),
            Some(Value::String(text)) => {
                text.parse().ok().or_else(|| whole(&text.parse::<Number>().ok()?)).ok_or_else(wrong)
            }
            Some(_) => Err(wrong()),
        }
    }

    /// Returns the number of an enum value; a name that is not in `names` stays a name. 0 if absent.
    pub(super) fn choice(self, name: &str, names: &[&str]) -> Result<Value, Wrong> {
        match self.get(name) {
            Some(Value::String(text)) if text.parse::<i64>().is_err() => {
                let number = names.iter().position(|known| known == text);
                Ok(number.map_or_else(|| text.as_str().into(), Value::from))
            }
            _ => self.integer(name).map(Value::from),
        }
    }

    /// Returns a list; empty if absent.
    pub(super) fn list(self, name: &str) -> Result<&'a [Value], Wrong> {
        match self.get(name) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(format!("'{name}' is not a list")),
        }
    }

    /// Returns a map with plain values; empty if absent.
    pub(super) fn map(self, name: &str) -> Result<Map<String, Value>, Wrong> {
        match self.get(name) {
            None => Ok(Map::new()),
            Some(Value::Object(map)) if !map.values().any(|value| value.is_object() || value.is_array()) => {
                Ok(map.clone())
            }
            Some(_) => Err(format!("'{name}' is not a map of text")),
        }
    }

    /// Returns a message; an empty one if absent.
    pub(super) fn message(self, name: &str, empty: &'a Map<String, Value>) -> Result<Message<'a>, Wrong> {
        self.get(name).map_or(Ok(Message(empty)), |value| Message::of(value, &format!("'{name}'")))
    }
}

/// Converts `namespaceOverride` to `namespace_override`.
pub(super) fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Returns a number as an integer; protobuf allows `1e3` and `5.0` for integers.
#[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
fn whole(number: &Number) -> Option<i64> {
    /// Largest magnitude up to which a double holds every integer: 2^53.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let exact = |value: &f64| value.fract() == 0.0 && value.abs() <= EXACT;
    number.as_i64().or_else(|| number.as_f64().filter(exact).map(|value| value as i64))
}

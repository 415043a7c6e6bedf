//! Platforms, cells, tracks and commands as documents; JSON keys are the field names.
//!
//! Writing sets the keys of the message and leaves every other key of the document alone. Reading is lenient: a missing key, or
//! one of another type, is the field's default, so that a heartbeat document is shown with the fields it has.

use peat_ipc::sidecar::{Cell, CellStatus, Command, CommandStatus, Platform, PlatformStatus, Track, TrackCategory};
use peat_ipc::{CallError, Code};
use serde_json::{Map, Value};

/// A message that is stored as a document.
pub(super) trait Typed: Sized {
    /// Collection of the documents.
    const COLLECTION: &'static str;
    /// Name of the message type, for errors.
    const NAME: &'static str;

    fn id(&self) -> &str;

    /// Returns the keys to set, with their values.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: a number that JSON cannot represent, or that is not a value of its enum.
    fn to_fields(&self) -> Result<Map<String, Value>, CallError>;

    /// Returns the message in a document. Its id is the document's id; an `id` key in the content is ignored.
    fn from_document(id: String, document: &Map<String, Value>) -> Self;
}

impl Typed for Platform {
    const COLLECTION: &'static str = "platforms";
    const NAME: &'static str = "platform";

    fn id(&self) -> &str {
        &self.id
    }

    fn to_fields(&self) -> Result<Map<String, Value>, CallError> {
        let status = PlatformStatus::try_from(self.status).map(|status| status.as_str_name());
        let mut fields = Fields::of::<Platform>();
        fields.set("id", self.id.as_str());
        fields.set("platform_type", self.platform_type.as_str());
        fields.set("name", self.name.as_str());
        fields.choice("status", status.ok())?;
        fields.number("latitude", self.latitude)?;
        fields.number("longitude", self.longitude)?;
        fields.number("altitude_m", self.altitude_m)?;
        fields.number("readiness", self.readiness)?;
        fields.set("capabilities", self.capabilities.clone());
        fields.optional("unit_id", self.unit_id.clone());
        fields.optional("callsign", self.callsign.clone());
        Ok(fields.map)
    }

    fn from_document(id: String, document: &Map<String, Value>) -> Platform {
        let from = Reading(document);
        let status =
            from.choice("status", "PLATFORM_STATUS_", |name| PlatformStatus::from_str_name(name).map(i32::from));
        Platform {
            id,
            platform_type: from.text("platform_type"),
            name: from.text("name"),
            status: status.filter(|number| PlatformStatus::is_valid(*number)).unwrap_or_default(),
            latitude: from.number("latitude").unwrap_or_default(),
            longitude: from.number("longitude").unwrap_or_default(),
            altitude_m: from.number("altitude_m").unwrap_or_default(),
            readiness: from.number("readiness").unwrap_or_default(),
            capabilities: from.texts("capabilities"),
            unit_id: from.optional_text("unit_id"),
            callsign: from.optional_text("callsign"),
            ..Platform::default()
        }
    }
}

impl Typed for Cell {
    const COLLECTION: &'static str = "cells";
    const NAME: &'static str = "cell";

    fn id(&self) -> &str {
        &self.id
    }

    fn to_fields(&self) -> Result<Map<String, Value>, CallError> {
        let status = CellStatus::try_from(self.status).map(|status| status.as_str_name());
        let mut fields = Fields::of::<Cell>();
        fields.set("id", self.id.as_str());
        fields.set("name", self.name.as_str());
        fields.choice("status", status.ok())?;
        fields.set("platform_count", self.platform_count);
        fields.number("center_latitude", self.center_latitude)?;
        fields.number("center_longitude", self.center_longitude)?;
        fields.set("capabilities", self.capabilities.clone());
        fields.optional("formation_id", self.formation_id.clone());
        fields.optional("leader_id", self.leader_id.clone());
        Ok(fields.map)
    }

    fn from_document(id: String, document: &Map<String, Value>) -> Cell {
        let from = Reading(document);
        let status = from.choice("status", "CELL_STATUS_", |name| CellStatus::from_str_name(name).map(i32::from));
        Cell {
            id,
            name: from.text("name"),
            status: status.filter(|number| CellStatus::is_valid(*number)).unwrap_or_default(),
            platform_count: from.integer("platform_count").and_then(|count| count.try_into().ok()).unwrap_or_default(),
            center_latitude: from.number("center_latitude").unwrap_or_default(),
            center_longitude: from.number("center_longitude").unwrap_or_default(),
            capabilities: from.texts("capabilities"),
            formation_id: from.optional_text("formation_id"),
            leader_id: from.optional_text("leader_id"),
        }
    }
}

impl Typed for Track {
    const COLLECTION: &'static str = "tracks";
    const NAME: &'static str = "track";

    fn id(&self) -> &str {
        &self.id
    }

    fn to_fields(&self) -> Result<Map<String, Value>, CallError> {
        let category = TrackCategory::try_from(self.category).map(|category| category.as_str_name());
        let mut fields = Fields::of::<Track>();
        fields.set("id", self.id.as_str());
        fields.set("source_platform", self.source_platform.as_str());
        fields.optional("cell_id", self.cell_id.clone());
        fields.optional("formation_id", self.formation_id.clone());
        fields.number("latitude", self.latitude)?;
        fields.number("longitude", self.longitude)?;
        fields.optional_number("altitude_m", self.altitude_m)?;
        fields.optional_number("cep_m", self.cep_m)?;
        fields.optional_number("heading_deg", self.heading_deg)?;
        fields.optional_number("speed_mps", self.speed_mps)?;
        fields.set("classification", self.classification.as_str());
        fields.number("confidence", self.confidence)?;
        fields.choice("category", category.ok())?;
        Ok(fields.map)
    }

    fn from_document(id: String, document: &Map<String, Value>) -> Track {
        let from = Reading(document);
        let category =
            from.choice("category", "TRACK_CATEGORY_", |name| TrackCategory::from_str_name(name).map(i32::from));
        Track {
            id,
            source_platform: from.text("source_platform"),
            cell_id: from.optional_text("cell_id"),
            formation_id: from.optional_text("formation_id"),
            latitude: from.number("latitude").unwrap_or_default(),
            longitude: from.number("longitude").unwrap_or_default(),
            altitude_m: from.number("altitude_m"),
            cep_m: from.number("cep_m"),
            heading_deg: from.number("heading_deg"),
            speed_mps: from.number("speed_mps"),
            classification: from.text("classification"),
            confidence: from.number("confidence").unwrap_or_default(),
            category: category.filter(|number| TrackCategory::is_valid(*number)).unwrap_or_default(),
        }
    }
}

impl Typed for Command {
    const COLLECTION: &'static str = "commands";
    const NAME: &'static str = "command";

    fn id(&self) -> &str {
        &self.id
    }

    fn to_fields(&self) -> Result<Map<String, Value>, CallError> {
        let status = CommandStatus::try_from(self.status).map(|status| status.as_str_name());
        let mut fields = Fields::of::<Command>();
        fields.set("id", self.id.as_str());
        fields.set("target_id", self.target_id.as_str());
        fields.set("command_type", self.command_type.as_str());
        fields.choice("status", status.ok())?;
        fields.set("created_at", self.created_at);
        fields.set("expires_at", self.expires_at);
        fields.set("payload_json", self.payload_json.as_str());
        fields.set("group", self.group.as_str());
        fields.set("all", self.all);
        fields.set("result_json", self.result_json.as_str());
        fields.set("error", self.error.as_str());
        Ok(fields.map)
    }

    fn from_document(id: String, document: &Map<String, Value>) -> Command {
        let from = Reading(document);
        let status = from.choice("status", "COMMAND_STATUS_", |name| CommandStatus::from_str_name(name).map(i32::from));
        Command {
            id,
            target_id: from.text("target_id"),
            command_type: from.text("command_type"),
            status: status.filter(|number| CommandStatus::is_valid(*number)).unwrap_or_default(),
            created_at: from.integer("created_at").unwrap_or_default(),
            expires_at: from.integer("expires_at").unwrap_or_default(),
            payload_json: from.text("payload_json"),
            group: from.text("group"),
            all: document.get("all").and_then(Value::as_bool).unwrap_or_default(),
            result_json: from.text("result_json"),
            error: from.text("error"),
            ..Command::default()
        }
    }
}

/// Fields being written, and the name of their message for errors.
struct Fields {
    message: &'static str,
    map: Map<String, Value>,
}

impl Fields {
    fn of<T: Typed>() -> Fields {
        Fields { message: T::NAME, map: Map::new() }
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.map.insert(key.into(), value.into());
    }

    fn optional(&mut self, key: &str, value: Option<String>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    fn number(&mut self, key: &str, value: f64) -> Result<(), CallError> {
        match serde_json::Number::from_f64(value) {
            Some(number) => {
                self.set(key, Value::Number(number));
                Ok(())
            }
            None => Err(self.refused(key, "is not a finite number")),
        }
    }

    fn optional_number(&mut self, key: &str, value: Option<f64>) -> Result<(), CallError> {
        value.map_or(Ok(()), |value| self.number(key, value))
    }

    /// Sets an enum field to the name of its value. `None` stands for a number without a name, which is an error.
    fn choice(&mut self, key: &str, name: Option<&str>) -> Result<(), CallError> {
        let name = name.ok_or_else(|| self.refused(key, "is a number its enum does not have"))?;
        self.set(key, name);
        Ok(())
    }

    fn refused(&self, key: &str, why: &str) -> CallError {
        CallError::new(Code::InvalidArgument, format!("{}.{key} {why}", self.message))
    }
}

/// A document being read.
struct Reading<'a>(&'a Map<String, Value>);

impl Reading<'_> {
    fn text(&self, key: &str) -> String {
        self.optional_text(key).unwrap_or_default()
    }

    fn optional_text(&self, key: &str) -> Option<String> {
        self.0.get(key)?.as_str().map(String::from)
    }

    fn texts(&self, key: &str) -> Vec<String> {
        let list = self.0.get(key).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|item| item.as_str().map(String::from)).collect()
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.0.get(key)?.as_f64()
    }

    /// Reads an integer, or a string of digits: protobuf's JSON form writes 64-bit integers as strings.
    fn integer(&self, key: &str) -> Option<i64> {
        match self.0.get(key)? {
            Value::String(digits) => digits.parse().ok(),
            value => value.as_i64(),
        }
    }

    /// Reads an enum: its number, its full name, or its name without `prefix`.
    fn choice(&self, key: &str, prefix: &str, by_name: impl Fn(&str) -> Option<i32>) -> Option<i32> {
        match self.0.get(key)? {
            Value::String(name) => {
                let name = name.to_ascii_uppercase();
                by_name(&name).or_else(|| by_name(&format!("{prefix}{name}")))
            }
            value => value.as_i64()?.try_into().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).expect("the test's own JSON")
    }

    #[test]
    fn a_platform_comes_back_as_it_was_put() {
        let platform = Platform {
            id: "a1".into(),
            platform_type: "uav".into(),
            status: PlatformStatus::Busy.into(),
            latitude: -12.5,
            capabilities: vec!["eo".into(), "ir".into()],
            callsign: Some("RAVEN".into()),
            ..Platform::default()
        };
        let fields = platform.to_fields().expect("a valid platform");
        assert_eq!(fields["status"], "PLATFORM_STATUS_BUSY");
        assert!(!fields.contains_key("unit_id"));
        assert_eq!(Platform::from_document("a1".into(), &fields), platform);
    }

    #[test]
    fn cells_tracks_and_commands_come_back_as_they_were_put() {
        let cell =
            Cell { id: "c".into(), platform_count: 3, status: 1, leader_id: Some("a1".into()), ..Cell::default() };
        assert_eq!(Cell::from_document("c".into(), &cell.to_fields().expect("valid")), cell);
        let track = Track { id: "t".into(), cep_m: Some(2.0), category: 4, confidence: 0.5, ..Track::default() };
        assert_eq!(Track::from_document("t".into(), &track.to_fields().expect("valid")), track);
        let command = Command { id: "k".into(), created_at: i64::MIN, expires_at: i64::MAX, ..Command::default() };
        assert_eq!(Command::from_document("k".into(), &command.to_fields().expect("valid")), command);
    }

    #[test]
    fn a_heartbeat_document_shows_with_what_it_has() {
        let heartbeat = document(r#"{"agent_id":"a1","platform_type":"uds-remote-agent","last_seen":1,"name":7}"#);
        let shown = Platform::from_document("a1".into(), &heartbeat);
        let expected = Platform { id: "a1".into(), platform_type: "uds-remote-agent".into(), ..Platform::default() };
        assert_eq!(shown, expected);
    }

    #[test]
    fn enums_are_read_by_name_by_short_name_and_by_number() {
        for json in [r#"{"status":"PLATFORM_STATUS_READY"}"#, r#"{"status":"ready"}"#, r#"{"status":1}"#] {
            assert_eq!(Platform::from_document("p".into(), &document(json)).status, 1, "{json}");
        }
        for json in [r#"{"status":"odd"}"#, r#"{"status":77}"#, r#"{"status":1e99}"#, r#"{"status":null}"#] {
            assert_eq!(Platform::from_document("p".into(), &document(json)).status, 0, "{json}");
        }
        let expired = Command::from_document("k".into(), &document(r#"{"status":"EXPIRED","created_at":"12"}"#));
        assert_eq!((expired.status, expired.created_at), (100, 12));
    }

    #[test]
    fn what_json_cannot_hold_is_refused_by_name() {
        let error = Platform { latitude: f64::NAN, ..Platform::default() }.to_fields().expect_err("not a number");
        assert_eq!(error.to_string(), "INVALID_ARGUMENT: platform.latitude is not a finite number");
        let error = Track { category: 99, ..Track::default() }.to_fields().expect_err("no such category");
        assert_eq!(error.to_string(), "INVALID_ARGUMENT: track.category is a number its enum does not have");
    }
}

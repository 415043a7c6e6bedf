//! The settings file: a third layer below flags and environment, which a running node can reload.
//!
//! Lines are `NAME=value`, with the names of the environment variables. Empty lines and lines that begin with `#` are skipped; a
//! value may be quoted. Every error names the file and the line.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::environment::{self, clean, variable};
use super::original::Unknown;
use super::{Error, Flags};
use crate::files::{self, FileError, Links};
use crate::limits::SETTINGS_FILE_BYTES;

/// Content of a settings file.
#[derive(Debug, Default)]
pub(super) struct Settings {
    path: PathBuf,
    pub(super) flags: Flags,
    /// Number of the line that sets a variable.
    lines: BTreeMap<String, usize>,
    /// Warnings about lines without effect.
    pub(super) warnings: Vec<String>,
}

impl Settings {
    /// Reads the file that the flags or the environment name, if any.
    pub(super) fn of(flags: &Flags, environment: &Flags) -> Result<Settings, Error> {
        let named = flags.settings.as_deref().or(environment.settings.as_deref());
        named.map(Settings::read).transpose().map(Option::unwrap_or_default)
    }

    /// Reads the file at `text`; with a `-` before the path it may be missing.
    pub(super) fn read(text: &str) -> Result<Settings, Error> {
        let (path, may_be_missing) = match text.strip_prefix('-') {
            Some(path) => (Path::new(path), true),
            None => (Path::new(text), false),
        };
        match contents(path) {
            Ok(contents) => Settings::parse(path, &contents),
            Err(cause) if may_be_missing && cause.kind() == std::io::ErrorKind::NotFound => Ok(Settings::default()),
            Err(cause) => Err(Error::new(path.display().to_string(), cause.to_string())),
        }
    }

    fn parse(path: &Path, contents: &str) -> Result<Settings, Error> {
        let (mut variables, mut lines, mut unknown) = (BTreeMap::new(), BTreeMap::new(), Unknown::default());
        for (number, line) in (1..).zip(contents.lines().map(clean)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |reason: String| Error::new(format!("{}:{number}", path.display()), reason);
            let (name, value) = assignment(line).map_err(wrong)?;
            if let (false, Some(ending)) = (environment::is_known(name), environment::ending(name)) {
                unknown.add(&format!("{}:{number}: ", path.display()), name, ending, value);
                continue;
            }
            if let Some(first) = lines.insert(name.to_owned(), number) {
                return Err(wrong(format!("{name} is set in line {first} already")));
            }
            variables.insert(name.to_owned(), value.to_owned());
        }
        let warnings = unknown.end()?;
        let flags = environment::flags(variables.iter().filter(|(_, value)| !value.is_empty()))?;
        Ok(Settings { path: path.to_owned(), flags, lines, warnings })
    }

    /// Returns the file, line and variable of a setting, for errors.
    pub(super) fn called(&self, long: &str) -> String {
        let name = variable(long);
        let line = self.lines.get(&name).copied().unwrap_or(0);
        format!("{}:{line}: {name}", self.path.display())
    }
}

/// Reads the file, after checking that no other user can change it and thereby control this node.
fn contents(path: &Path) -> std::io::Result<String> {
    let read = files::open(path, Links::Follow).and_then(|file| {
        let metadata = file.metadata()?;
        files::check_owner(&metadata, true)?;
        if metadata.mode() & 0o002 != 0 {
            return Err(FileError::Refused(format!(
                "can be changed by every user; run `chmod o-w {}`",
                path.display()
            )));
        }
        files::text(&file, SETTINGS_FILE_BYTES)
    });
    read.map(|text| text.as_str().to_owned()).map_err(|cause| match cause {
        FileError::Machine(cause) => cause,
        FileError::Refused(words) => std::io::Error::other(format!("it {words}")),
    })
}

/// Splits a line into name and value.
fn assignment(line: &str) -> Result<(&str, &str), String> {
    let (name, value) = line.split_once('=').ok_or("is not NAME=value")?;
    let (name, value) = (name.trim_end(), value.trim_start());
    match name {
        "PEAT_NODE_SETTINGS" => Err("a settings file names no other one".to_owned()),
        name if environment::ending(name).is_none() => Err(format!("{name} stands for no flag of this version")),
        name => Ok((name, unquoted(value))),
    }
}

fn unquoted(value: &str) -> &str {
    let between = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    between('"').or_else(|| between('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(contents: &str) -> Result<Settings, String> {
        Settings::parse(Path::new("/etc/s"), contents).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_set_what_the_variables_of_their_names_would() {
        let settings = parse("# times\n\nPEAT_NODE_HEARTBEAT = 5\nPEAT_NODE_PEERS=\"a,b\"\nPEAT_NODE_PIN=\n").unwrap();
        let expected = Flags { heartbeat: Some("5".into()), peer: vec!["a,b".into()], ..Flags::default() };
        assert_eq!(settings.flags, expected);
        assert_eq!(settings.called("--peer"), "/etc/s:4: PEAT_NODE_PEERS");
    }

    #[test]
    fn a_line_that_cannot_be_used_is_named() {
        for (contents, named) in [
            ("\nPEAT_NODE_BNID=x", "/etc/s:2: PEAT_NODE_BNID"),
            ("HEARTBEAT=5", "/etc/s:1: HEARTBEAT"),
            ("PEAT_NODE_PIN", "/etc/s:1: is not NAME=value"),
            ("PEAT_NODE_SETTINGS=/x", "/etc/s:1: a settings file"),
            ("PEAT_NODE_LOG=info\nPEAT_NODE_LOG=warn", "/etc/s:2: PEAT_NODE_LOG is set in line 1"),
        ] {
            let words = parse(contents).expect_err(contents);
            assert!(words.starts_with(named), "{contents:?}: {words}");
        }
    }

    #[test]
    fn a_byte_order_mark_and_carriage_returns_are_no_part_of_a_setting() {
        let settings = parse("\u{feff}PEAT_NODE_HEARTBEAT=5\r\nPEAT_NODE_APP_ID= x \r\n\r\n").expect("valid");
        assert_eq!((settings.flags.heartbeat.as_deref(), settings.flags.app_id.as_deref()), (Some("5"), Some("x")));
    }

    #[test]
    fn lines_of_the_first_peat_node_are_named_with_what_to_do() {
        let words = parse("PEAT_NODE_IROH_UDP_PORT=1\nPEAT_NODE_BNID=x").expect_err("two");
        assert!(words.contains("/etc/s:1: PEAT_NODE_IROH_UDP_PORT: give PEAT_NODE_BIND"), "{words}");
        assert!(words.contains("/etc/s:2: PEAT_NODE_BNID: stands for no flag"), "{words}");
        let warned = parse("PEAT_NODE_DISABLE_MDNS=true").expect("taken").warnings;
        assert!(warned[0].starts_with("/etc/s:1: PEAT_NODE_DISABLE_MDNS has no effect"), "{warned:?}");
    }

    #[test]
    fn a_missing_file_is_an_error_unless_it_may_be_missing() {
        let missing = std::env::temp_dir().join("peat-node-settings/missing");
        let error = Settings::read(&missing.display().to_string()).expect_err("missing").to_string();
        assert!(error.contains("settings/missing"), "{error}");
        assert_eq!(Settings::read(&format!("-{}", missing.display())).expect("as if empty").flags, Flags::default());
    }

    #[test]
    fn a_settings_file_that_every_user_can_change_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("settings");
        std::fs::write(&path, "PEAT_NODE_APP_ID=x\n").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o646)).expect("set");
        let error = Settings::read(&path.display().to_string()).expect_err("open to others").to_string();
        assert!(error.contains("chmod o-w"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
        Settings::read(&path.display().to_string()).expect("closed to others");
    }

    #[test]
    fn a_file_that_is_no_text_or_endless_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("settings");
        for contents in [vec![0xff; 9], vec![b'#'; usize::try_from(SETTINGS_FILE_BYTES).expect("small") + 1]] {
            std::fs::write(&path, contents).expect("written");
            Settings::read(&path.display().to_string()).expect_err("refused");
        }
    }
}

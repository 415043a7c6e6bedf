//! Environment variables: a second layer of flags, and the few others that name standard directories.
//!
//! Reads no environment itself: the caller passes the variables.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

use super::kubernetes::is_service_link;
use super::original::Unknown;
use super::{Error, Flags};

const PREFIX: &str = "PEAT_NODE_";

/// The process environment, as far as it is valid UTF-8.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Collects the variables that are set and not empty; the values of `PEAT_NODE_*` without surrounding white space
    /// ([`clean`]).
    ///
    /// # Errors
    /// A `PEAT_NODE_*` variable is not UTF-8.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Environment, Error> {
        let mut kept = BTreeMap::new();
        for (name, value) in variables {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => {
                    let value = if name.starts_with(PREFIX) { clean(&value) } else { &value };
                    if !value.is_empty() {
                        kept.insert(name, value.to_owned());
                    }
                }
                Err(_) if name.starts_with(PREFIX) => return Err(Error::new(&name, "is not valid UTF-8")),
                Err(_) => {}
            }
        }
        Ok(Environment { variables: kept })
    }

    /// Returns a variable if it is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Returns the first directory of a variable that systemd fills with a colon-separated list.
    #[must_use]
    pub fn directory(&self, name: &str) -> Option<PathBuf> {
        self.get(name)?.split(':').next().filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// Returns the flags that `PEAT_NODE_*` variables set, and warnings about variables without effect.
    ///
    /// # Errors
    /// All variables that correspond to no flag.
    pub fn flags(&self) -> Result<(Flags, Vec<String>), Error> {
        let (mut known, mut unknown) = (Vec::new(), Unknown::default());
        for (name, value) in &self.variables {
            let Some(ending) = name.strip_prefix(PREFIX) else { continue };
            if is_known(name) {
                known.push((name, value));
            } else if !is_service_link(name, value) {
                unknown.add("", name, ending, value);
            }
        }
        let warnings = unknown.end()?;
        Ok((flags(known.into_iter())?, warnings))
    }
}

/// Returns the flags that known `PEAT_NODE_*` variables with these values set.
pub(super) fn flags<'a>(variables: impl Iterator<Item = (&'a String, &'a String)>) -> Result<Flags, Error> {
    let mut arguments = Vec::new();
    for (name, value) in variables {
        arguments.push(flag(name).ok_or_else(|| Error::new(name, "stands for no flag of this version"))?);
        arguments.push(value.clone());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Flags::from_args(&["peat-node"], &arguments).map_err(|exit| Error::new(PREFIX, exit.output.trim_end()))
}

/// Returns the name without the prefix `PEAT_NODE_`; `None` if it does not have it.
pub(super) fn ending(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX)
}

/// Strips what editors, Windows and quoting add around a value: white space, carriage returns, byte order marks.
pub fn clean(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// Returns true if a variable corresponds to a flag.
pub(super) fn is_known(name: &str) -> bool {
    flag(name).is_some()
}

/// Returns the flag that a variable corresponds to.
fn flag(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX)?;
    if rest == "PEERS" {
        return Some("--peer".to_owned());
    }
    let known = |flag: &&argh::FlagInfo<'_>| variable_ending(flag.long) == rest;
    Flags::get_args_info().flags.iter().find(known).map(|flag| flag.long.to_owned())
}

fn variable_ending(long: &str) -> String {
    long.trim_start_matches('-').replace('-', "_").to_uppercase()
}

/// Returns the variable that corresponds to a flag such as `--data-dir`.
#[must_use]
pub fn variable(long: &str) -> String {
    let ending = if long == "--peer" { "PEERS".to_owned() } else { variable_ending(long) };
    format!("{PREFIX}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Environment::new(variables).expect("text")
    }

    fn set(variables: &[(&str, &str)]) -> Flags {
        environment(variables).flags().expect("known").0
    }

    #[test]
    fn every_flag_can_be_given_as_a_variable() {
        for flag in Flags::get_args_info().flags.iter().filter(|flag| flag.long != "--help") {
            let (flags, _) = environment(&[(&variable(flag.long), "x")]).flags().expect("known");
            assert_ne!(flags, Flags::default(), "{} sets nothing", flag.long);
        }
    }

    #[test]
    fn an_empty_variable_is_unset() {
        for empty in ["", " ", "\r", "\u{feff}"] {
            assert_eq!(set(&[("PEAT_NODE_BIND", empty)]), Flags::default(), "{empty:?}");
        }
    }

    #[test]
    fn unknown_variables_are_named_all_at_once() {
        let error = environment(&[("PEAT_NODE_BNID", "x"), ("PEAT_NODE_LOG", "info"), ("PEAT_NODE_PERS", "y")]).flags();
        let words = error.expect_err("unknown").to_string();
        assert_eq!(words, "PEAT_NODE_BNID, PEAT_NODE_PERS: stand for no flag of this version");
    }

    #[test]
    fn settings_of_the_first_peat_node_are_told_their_replacement() {
        let variables = [("PEAT_NODE_IROH_UDP_PORT", "4242"), ("PEAT_NODE_X", "1"), ("PEAT_NODE_ENCRYPTION_KEY", "k")];
        let words = environment(&variables).flags().expect_err("replaced").to_string();
        for part in ["PEAT_NODE_X: stands for no flag", "PEAT_NODE_IROH_UDP_PORT: give PEAT_NODE_BIND=0.0.0.0:PORT"] {
            assert!(words.contains(part), "{words}");
        }
        assert!(words.contains("PEAT_NODE_ENCRYPTION_KEY: documents are not encrypted"), "{words}");
        assert!(!words.contains("4242") && !words.contains('\n'), "no values, one line: {words}");
    }

    #[test]
    fn settings_of_the_first_peat_node_without_effect_are_warnings() {
        let variables = [
            ("PEAT_NODE_DISABLE_MDNS", "true"),
            ("PEAT_NODE_BIN", "/usr/bin/peat-node"),
            ("PEAT_NODE_ATTACHMENT_OUTBOX_POLL_SECS", "1"),
            ("PEAT_NODE_DISCOVERY_NAMESPACE", "edge"),
            ("PEAT_NODE_ENABLE_KUBERNETES_DISCOVERY", "false"),
            ("PEAT_NODE_LOG", "warn"),
        ];
        let (flags, warnings) = environment(&variables).flags().expect("taken");
        assert_eq!(flags.log.as_deref(), Some("warn"));
        assert_eq!(warnings.len(), 5, "{warnings:?}");
        assert!(
            warnings.iter().any(|words| words.starts_with("PEAT_NODE_DISABLE_MDNS has no effect: ")),
            "{warnings:?}"
        );
    }

    #[test]
    fn what_surrounds_a_value_is_no_part_of_it() {
        for value in [" 0.0.0.0:1", "0.0.0.0:1\r\n", "\u{feff}0.0.0.0:1 ", "\t0.0.0.0:1\u{a0}"] {
            assert_eq!(set(&[("PEAT_NODE_BIND", value)]).bind.as_deref(), Some("0.0.0.0:1"), "{value:?}");
        }
        let home = environment(&[("HOME", "/home/with space ")]);
        assert_eq!(home.get("HOME"), Some("/home/with space "), "others' variables are left alone");
    }

    #[test]
    fn what_kubernetes_injects_is_ignored() {
        let injected = [
            ("PEAT_NODE_PORT", "tcp://10.0.0.1:50051"),
            ("PEAT_NODE_HUB_PORT", "tcp://10.0.0.2:50051"),
            ("PEAT_NODE_PORT_50051_TCP_ADDR", "10.0.0.1"),
            ("PEAT_NODE_SERVICE_HOST", "10.0.0.1"),
        ];
        assert_eq!(environment(&injected).flags().expect("ignored"), (Flags::default(), Vec::new()));
    }

    #[test]
    fn peers_have_a_plural() {
        assert_eq!(set(&[("PEAT_NODE_PEERS", "a,b")]).peer, ["a,b"]);
    }

    #[test]
    fn a_systemd_directory_list_begins_with_ours() {
        let directory = environment(&[("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")]).directory("STATE_DIRECTORY");
        assert_eq!(directory, Some(PathBuf::from("/var/lib/a")));
    }
}

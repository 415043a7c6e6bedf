//! Access rights: client sockets, groups, and the token of TCP callers.

use std::path::{Path, PathBuf};

use super::secret::{self, Secret};

/// Id that the kernel reports for ids without a meaning in this user namespace. It must match no user.
const OVERFLOW_ID: u32 = 65_534;

/// Access rights of the client sockets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Access {
    /// Group with administrator rights, like root and the node's own user.
    pub admin_group: Option<Group>,
    /// Group that owns the unix socket.
    pub socket_group: Option<Group>,
    /// Permission bits of the unix socket.
    pub socket_mode: u32,
    /// Token that callers over TCP must present.
    pub token: Option<TokenFile>,
    /// `--insecure-api` was given: callers over TCP are administrators without a token.
    pub insecure: bool,
    /// `--open-documents` was given: every caller may write the documents of every agent.
    pub open_documents: bool,
}

/// A numeric group id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Group(pub u32);

/// A bearer token and its file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Content of the file, without white space around it.
    pub token: Secret,
}

/// Finds a group by number or, in the text of `/etc/group`, by name.
pub(super) fn group(text: &str, database: &str) -> Result<Group, String> {
    let id = match text.parse() {
        Ok(number) => number,
        Err(_) => by_name(text, database).ok_or_else(|| format!("there is no group '{text}' in /etc/group"))?,
    };
    match id {
        OVERFLOW_ID => Err(format!("group {OVERFLOW_ID} stands for every unknown group; name another")),
        id => Ok(Group(id)),
    }
}

fn by_name(name: &str, database: &str) -> Option<u32> {
    let mut lines = database.lines().map(|line| line.split(':'));
    let mut fields = lines.find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    fields.nth(1)?.parse().ok()
}

/// Parses the permission bits of the socket from octal digits.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
        Ok(mode @ ..=0o777) => Ok(mode),
        _ => Err(format!("'{text}' is not a mode; expected octal digits up to 0777, as in 0660")),
    }
}

/// Reads a token: one line of at least 16 visible characters.
pub(super) fn token_file(path: &Path) -> Result<TokenFile, String> {
    let text = secret::read(path)?;
    let token = text.trim();
    if token.len() < 16 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{} must hold one token of at least 16 visible ASCII characters", path.display()));
    }
    Ok(TokenFile { path: path.to_owned(), token: Secret::new(token.as_bytes().to_vec()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &str = "root:x:0:\npeat:x:991:ops\nnogroup:x:65534:\n";

    #[test]
    fn groups_have_names_and_numbers() {
        assert_eq!(group("peat", GROUPS), Ok(Group(991)));
        assert_eq!(group("1234", GROUPS), Ok(Group(1234)));
        group("pea", GROUPS).expect_err("unknown");
    }

    #[test]
    fn the_overflow_group_matches_nobody() {
        group("nogroup", GROUPS).expect_err("by name");
        group("65534", GROUPS).expect_err("by number");
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("0660"), Ok(0o660));
        assert_eq!(mode("600"), Ok(0o600));
        for text in ["", "9", "01777", "rw-rw----"] {
            mode(text).expect_err(text);
        }
    }
}

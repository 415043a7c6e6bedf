//! Identity and role of a caller.
//!
//! A role is decided from the kernel's credentials of the socket's other end, or from a token; never from a claim in the request.

use peat_ipc::{CallError, Code};
use ring::digest::{SHA256, digest};

use crate::config::Secret;

/// Id that the kernel shows for users and groups without a mapping in this user namespace. Matches no user and no group.
pub(super) const OVERFLOW_ID: u32 = 65_534;

/// The other end of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Caller {
    /// A process on this machine, with the credentials the kernel reports.
    Unix { uid: u32, gid: u32, groups: Vec<u32> },
    /// A client of a TCP listener.
    Tcp,
    /// This node's own watcher of an agent.
    Watcher,
}

/// The rights of a caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// May call every method.
    Admin,
    /// May read and write documents, subscribe, and report on the commands of agents that it owns.
    Agent,
}

/// The rules that decide roles.
#[derive(Clone, Debug)]
pub struct Policy {
    /// User id of this node's process; its processes are admins.
    pub own_uid: u32,
    /// Group that makes its members admins.
    pub admin_group: Option<u32>,
    /// Token that every call over TCP must carry; the caller is then an admin. `None`: TCP callers have the rights of an agent,
    /// as other users of this machine do.
    pub tcp_token: Option<Secret>,
    /// True if `--insecure-api` was given: callers over TCP are admins without a token, on any address.
    pub insecure: bool,
    /// True if `--open-documents` was given: every caller may write the documents of every agent.
    pub open_documents: bool,
}

impl Policy {
    /// Returns the role of a call from `caller` that carries `token` (empty: none).
    ///
    /// # Errors
    /// UNAUTHENTICATED: a TCP caller without the right token.
    pub fn role(&self, caller: &Caller, token: &str) -> Result<Role, CallError> {
        match (caller, &self.tcp_token) {
            (Caller::Unix { uid, gid, groups }, _) if self.is_admin(*uid, *gid, groups) => Ok(Role::Admin),
            (Caller::Unix { .. } | Caller::Watcher, _) => Ok(Role::Agent),
            (Caller::Tcp, None) if self.insecure => Ok(Role::Admin),
            (Caller::Tcp, None) => Ok(Role::Agent),
            (Caller::Tcp, Some(expected)) if same(expected.expose(), token.as_bytes()) => Ok(Role::Admin),
            (Caller::Tcp, Some(_)) => Err(CallError::new(
                Code::Unauthenticated,
                "this listener wants the token of the node's --api-token-file with every call",
            )),
        }
    }

    fn is_admin(&self, uid: u32, gid: u32, groups: &[u32]) -> bool {
        let known_user = uid != OVERFLOW_ID && uid != u32::MAX;
        let in_admin_group = |group| gid == group || groups.contains(&group);
        (known_user && (uid == 0 || uid == self.own_uid))
            || self.admin_group.filter(|group| *group != OVERFLOW_ID).is_some_and(in_admin_group)
    }
}

/// Compares hashes instead of bytes, so that the time taken does not reveal the position of the first difference.
fn same(expected: &[u8], shown: &[u8]) -> bool {
    digest(&SHA256, expected).as_ref() == digest(&SHA256, shown).as_ref()
}

impl Role {
    /// Rejects a call of an agent to a method for admins.
    ///
    /// # Errors
    /// PERMISSION_DENIED.
    pub(super) fn require_admin(self, what: &str) -> Result<(), CallError> {
        match self {
            Role::Admin => Ok(()),
            Role::Agent => Err(CallError::new(
                Code::PermissionDenied,
                format!("{what} needs the node's own user, root, or a member of its --admin-group"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy { own_uid: 991, admin_group: Some(500), tcp_token: None, insecure: false, open_documents: false }
    }

    fn unix(uid: u32, gid: u32, groups: &[u32]) -> Caller {
        Caller::Unix { uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn root_the_own_user_and_the_admin_group_may_do_everything() {
        for caller in [unix(0, 0, &[]), unix(991, 7, &[]), unix(1000, 500, &[]), unix(1000, 7, &[4, 500])] {
            assert_eq!(policy().role(&caller, ""), Ok(Role::Admin), "{caller:?}");
        }
        assert_eq!(policy().role(&unix(1000, 7, &[4]), ""), Ok(Role::Agent));
    }

    #[test]
    fn overflow_ids_match_nobody() {
        let policy = Policy {
            own_uid: OVERFLOW_ID,
            admin_group: Some(OVERFLOW_ID),
            tcp_token: None,
            insecure: false,
            open_documents: false,
        };
        let nobody = unix(OVERFLOW_ID, OVERFLOW_ID, &[OVERFLOW_ID]);
        assert_eq!(policy.role(&nobody, ""), Ok(Role::Agent));
    }

    #[test]
    fn a_tcp_caller_shows_the_token_where_one_is_asked_for() {
        let asked = Policy { tcp_token: Some(Secret::new(b"0123456789abcdef".to_vec())), ..policy() };
        assert_eq!(asked.role(&Caller::Tcp, "0123456789abcdef"), Ok(Role::Admin));
        for token in ["", "0123456789abcdeF", "0123456789abcdef "] {
            assert_eq!(asked.role(&Caller::Tcp, token).expect_err(token).code, Code::Unauthenticated);
        }
    }

    #[test]
    fn a_tcp_caller_without_a_token_is_an_agent_unless_the_operator_opened_the_interface() {
        assert_eq!(policy().role(&Caller::Tcp, ""), Ok(Role::Agent));
        assert_eq!(Policy { insecure: true, ..policy() }.role(&Caller::Tcp, ""), Ok(Role::Admin));
    }
}

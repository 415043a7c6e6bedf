//! Follows the store's indexes: agents and commands that peers changed, and commands that were changed here.
//!
//! After a start or a reopening everything is loaded at once; later only new index entries are examined, within a budget per
//! poll.

use peat_ipc::{CallError, Code};

use super::Engine;
use crate::clock::Now;
use crate::fleet;
use crate::store::{self, COMMANDS, Key, Kind};

/// Maximum number of index entries examined per poll, so that other calls are not delayed.
const EXAMINED_A_TURN: usize = 1_024;

impl Engine {
    // Agents.

    /// Notifies the fleet of changes by peers since the last scan; of every agent after a start or a reopening.
    pub(super) fn follow_store(&mut self, now: Now) {
        let followed = match self.followed {
            None => self.load_agents(now).map(|position| (position, false)),
            Some(position) => self.follow_from(now, position),
        };
        match followed {
            Ok((position, more)) => (self.followed, self.follow_on) = (Some(position), more),
            // The next commit triggers a retry.
            Err(error) => log::warn!("agents of other nodes are not followed: {error}"),
        }
    }

    fn load_agents(&mut self, now: Now) -> Result<u64, CallError> {
        let snapshot = self.view.snapshot()?;
        let position = snapshot.visible();
        let known: Vec<String> = self.fleet.agents(now, None).map(|agent| agent.agent_id).collect();
        let stored = snapshot.list(fleet::COLLECTION)?;
        for id in known.iter().filter(|id| stored.binary_search(id).is_err()).chain(&stored) {
            tell(
                &mut self.fleet,
                now,
                snapshot,
                &Key::new(fleet::COLLECTION, id.as_str()).map_err(|error| internal(&error))?,
            )?;
        }
        Ok(position)
    }

    fn follow_from(&mut self, now: Now, position: u64) -> Result<(u64, bool), CallError> {
        let snapshot = self.view.snapshot()?;
        let mut last = position;
        let mut examined = 0;
        for entry in snapshot.entries(Kind::Latest, position)? {
            let entry = entry?;
            examined += 1;
            if examined > EXAMINED_A_TURN {
                return Ok((last, true));
            }
            last = entry.sequence;
            let Some(key) = snapshot.name(&entry)? else { continue };
            // An entry without a sending peer was written here, which the fleet knows, or merged here from several versions,
            // which it may not know.
            if entry.from != 0 || !is_known(&self.fleet, snapshot, &key)? {
                tell(&mut self.fleet, now, snapshot, &key)?;
            }
        }
        Ok((snapshot.visible(), false))
    }

    // Commands.

    /// Notifies `commands` of every record that changed since the last scan; of all records after a start or a reopening.
    pub(super) fn follow_commands(&mut self, now: Now) {
        let followed = match self.followed_commands {
            None => self.load_commands(now).map(|position| (position, false)),
            Some(position) => self.follow_commands_from(now, position),
        };
        match followed {
            Ok((position, more)) => {
                self.followed_commands = Some(position);
                self.follow_on |= more;
            }
            // The next commit triggers a retry.
            Err(error) => log::warn!("commands are not followed: {error}"),
        }
    }

    fn load_commands(&mut self, now: Now) -> Result<u64, CallError> {
        let snapshot = self.view.snapshot()?;
        self.commands.handle_restart();
        for id in snapshot.list(COMMANDS)? {
            self.commands.handle_record(now, &id, snapshot.command(&id)?.as_ref());
        }
        Ok(snapshot.visible())
    }

    fn follow_commands_from(&mut self, now: Now, position: u64) -> Result<(u64, bool), CallError> {
        let snapshot = self.view.snapshot()?;
        let mut last = position;
        for (examined, entry) in snapshot.entries(Kind::Command, position)?.enumerate() {
            let entry = entry?;
            if examined >= EXAMINED_A_TURN {
                return Ok((last, true));
            }
            last = entry.sequence;
            if let Some(key) = snapshot.name(&entry)?
                && key.collection() == COMMANDS
            {
                let view = snapshot.record_at(&entry)?.and_then(|record| snapshot.view(&record));
                self.commands.handle_record(now, key.id(), view.as_ref());
            }
        }
        Ok((snapshot.visible(), false))
    }
}

/// Returns true if the fleet itself wrote the document's current content, or the document does not concern it.
fn is_known(fleet: &fleet::Fleet, snapshot: &store::Snapshot, key: &Key) -> Result<bool, CallError> {
    Ok(match key.collection() {
        fleet::COLLECTION => {
            let document = snapshot.document(key)?;
            document.is_some_and(|document| fleet.is_own_word(key.id(), &document.json))
        }
        collection => collection != "platforms",
    })
}

/// Notifies the fleet of a document, if it concerns the fleet.
fn tell(fleet: &mut fleet::Fleet, now: Now, snapshot: &store::Snapshot, key: &Key) -> Result<(), CallError> {
    match key.collection() {
        fleet::COLLECTION => {
            let document = snapshot.document(key)?;
            fleet.handle_record(now, key.id(), document.as_ref().map(|document| document.json.as_str()));
            tell_platform(fleet, now, snapshot, key.id())
        }
        "platforms" => tell_platform(fleet, now, snapshot, key.id()),
        _ => Ok(()),
    }
}

/// Notifies the fleet of an agent's platform, if the agent is known.
pub(super) fn tell_platform(
    fleet: &mut fleet::Fleet,
    now: Now,
    snapshot: &store::Snapshot,
    agent: &str,
) -> Result<(), CallError> {
    if fleet.knows(agent)
        && let Some(document) = snapshot.document(&Key::new("platforms", agent).map_err(|error| internal(&error))?)?
    {
        fleet.handle_platform(now, agent, &document.json);
    }
    Ok(())
}

fn internal(error: &store::KeyError) -> CallError {
    CallError::new(Code::Internal, error.to_string())
}

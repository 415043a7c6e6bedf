//! GetCommands: selection, order and pages.
//!
//! A list is ordered by creation time, which never changes, so a page token stays valid while commands change or are removed.
//! Without a page size the answer to an agent begins with the commands that are pending for it: a polling agent is never kept
//! from its work by results of earlier commands.

use peat_ipc::frame::PAYLOAD_BYTES;
use peat_ipc::prost::Message as _;
use peat_ipc::sidecar::{Command, CommandStatus, GetCommandsRequest, GetCommandsResponse, TargetStatus};
use peat_ipc::{CallError, Code};

use crate::clock::Now;
use crate::fleet::commands::{Commands, Place, Trust, shown};
use crate::limits::COMMANDS_PAGE;
use crate::store::{COMMANDS, CommandResult, CommandView, Rank, Snapshot};

/// Maximum number of commands examined for one page, which bounds the time of a call that matches few.
const EXAMINED_A_PAGE: usize = 4_096;
/// Bytes of an answer that are reserved for everything but the commands.
const FRAMING_BYTES: usize = 1_024;

/// State that a list is made from.
pub(super) struct Source<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) commands: &'a Commands,
    pub(super) trust: &'a Trust,
    pub(super) now: Now,
}

/// The part of a list that is being filled; also the first byte of a page token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
enum Part {
    All = 0,
    /// Commands that the agent may run and has not accepted.
    Pending = 1,
    /// All others, which follow the pending ones.
    Rest = 2,
}

/// The answer so far, and the limits that are left.
struct Page {
    commands: Vec<Command>,
    most: usize,
    examine: usize,
    room: usize,
    next: Option<Vec<u8>>,
}

/// Returns the commands that a GetCommands selects.
///
/// # Errors
/// INVALID_ARGUMENT: the page token is malformed, or a status is unknown.
pub(super) fn list(source: &Source<'_>, request: &GetCommandsRequest) -> Result<GetCommandsResponse, CallError> {
    if let Some(unknown) = request.status.iter().find(|status| CommandStatus::try_from(**status).is_err()) {
        return Err(CallError::new(Code::InvalidArgument, format!("status {unknown} is no CommandStatus")));
    }
    let (size, room) = (usize::try_from(request.page_size).unwrap_or(COMMANDS_PAGE), PAYLOAD_BYTES - FRAMING_BYTES);
    let paged = size > 0 || !request.page_token.is_empty();
    let mut page = Page {
        commands: Vec::new(),
        most: if size > 0 { size.min(COMMANDS_PAGE) } else { usize::MAX },
        examine: if paged { EXAMINED_A_PAGE } else { usize::MAX },
        room,
        next: None,
    };
    if !request.id.is_empty() {
        let place: Place = (0, request.id.as_str().into());
        source.fill(&mut page, request, Part::All, std::iter::once(place))?;
        return Ok(GetCommandsResponse { commands: page.commands, next_page_token: Vec::new() });
    }
    let (part, after) = match request.page_token.as_slice() {
        [] if !request.target_id.is_empty() && !paged => (Part::Pending, None),
        [] => (Part::All, None),
        token => parse_token(token).map(|(part, place)| (part, Some(place)))?,
    };
    source.part(&mut page, request, part, after.as_ref())?;
    if part == Part::Pending && page.next.is_none() {
        source.part(&mut page, request, Part::Rest, None)?;
    }
    Ok(GetCommandsResponse { commands: page.commands, next_page_token: page.next.unwrap_or_default() })
}

impl Source<'_> {
    /// Adds the commands of one part that follow a place.
    fn part(
        &self,
        page: &mut Page,
        request: &GetCommandsRequest,
        part: Part,
        after: Option<&Place>,
    ) -> Result<(), CallError> {
        if let Some(open) = self.open(request, part) {
            let places = self.places(open, after)?;
            return self.fill(page, request, part, places.into_iter());
        }
        match self.commands.listed(after) {
            Some(places) => self.fill(page, request, part, places.cloned()),
            None => {
                let places = self.places(self.snapshot.list(COMMANDS)?, after)?;
                self.fill(page, request, part, places.into_iter())
            }
        }
    }

    /// Returns the ids of the agent's open commands if every match is among them; `None` if the whole list must be examined.
    fn open(&self, request: &GetCommandsRequest, part: Part) -> Option<Vec<String>> {
        let open = [CommandStatus::Pending as i32, CommandStatus::Executing as i32];
        let asked = !request.status.is_empty() && request.status.iter().all(|status| open.contains(status));
        let narrow = part == Part::Pending || request.pending_only || (asked && self.trust.issuers.is_empty());
        (narrow && !request.target_id.is_empty()).then(|| self.commands.open_of(&request.target_id))?
    }

    /// Returns the places of these commands that are after `after`, in order.
    fn places(&self, ids: Vec<String>, after: Option<&Place>) -> Result<Vec<Place>, CallError> {
        let mut places = Vec::new();
        for id in ids.into_iter().filter(|id| !id.contains(':')) {
            if let Some(held) = self.snapshot.command(&id)? {
                places.push((held.body.created_at, id.into()));
            }
        }
        places.retain(|place| after.is_none_or(|after| place > after));
        places.sort();
        Ok(places)
    }

    fn fill(
        &self,
        page: &mut Page,
        request: &GetCommandsRequest,
        part: Part,
        places: impl Iterator<Item = Place>,
    ) -> Result<(), CallError> {
        let mut last: Option<Place> = None;
        for place in places {
            if page.commands.len() >= page.most || page.examine == 0 {
                page.next = last.map(|last| token(part, &last)).or_else(|| Some(first_token(part)));
                return Ok(());
            }
            page.examine -= 1;
            let held = self.snapshot.command(&place.1)?;
            if let Some(held) = held.filter(|held| is_wanted(held, self.now, self.trust, request, part)) {
                match self.describe(&held, &request.target_id, page)? {
                    Some(command) => {
                        page.room = page.room.saturating_sub(cost(&command));
                        page.commands.push(command);
                    }
                    None => {
                        page.next = last.map(|last| token(part, &last)).or_else(|| Some(first_token(part)));
                        return Ok(());
                    }
                }
            }
            last = Some(place);
        }
        Ok(())
    }

    /// Returns a command with the results of all its targets, or of `agent` only; `None` if the page has no room for it. A result
    /// that does not fit even an empty page is omitted and marked `result_omitted`.
    fn describe(&self, held: &CommandView, agent: &str, page: &Page) -> Result<Option<Command>, CallError> {
        let mut command = shown(held, self.now);
        command.targets.retain(|target| agent.is_empty() || target.agent_id == agent);
        let Some(mut room) = page.room.checked_sub(cost(&command)) else { return Ok(None) };
        // With a single target the result is sent twice: in the target, and in the command itself.
        let copies = if command.targets.len() == 1 { 2 } else { 1 };
        for target in &mut command.targets {
            if !has_result(target.status()) {
                continue;
            }
            let Some(result) = self.snapshot.command_result(&command.id, &target.agent_id)? else { continue };
            let bytes = copies * (result.result.len() + result.error.len() + 32);
            match room.checked_sub(bytes) {
                Some(left) => {
                    room = left;
                    add_result(target, result);
                }
                None if page.commands.is_empty() => target.result_omitted = true,
                None => return Ok(None),
            }
        }
        if let [one] = command.targets.as_slice() {
            (command.status, command.result_json, command.error) =
                (one.status, one.result_json.clone(), one.error.clone());
            (command.progress, command.percent) = (one.progress.clone(), one.percent);
        }
        Ok(Some(command))
    }
}

/// Returns the bytes that a command adds to an answer.
fn cost(command: &Command) -> usize {
    command.encoded_len() + 8
}

fn has_result(status: CommandStatus) -> bool {
    use CommandStatus::{Cancelled, Completed, Executing, Failed};
    matches!(status, Executing | Cancelled | Failed | Completed)
}

fn add_result(target: &mut TargetStatus, result: CommandResult) {
    match result.progress() {
        Some((words, percent)) if target.status() == CommandStatus::Executing => {
            (target.progress, target.percent) = (words, percent);
        }
        // The status has arrived and the result that belongs to it has not.
        Some(_) => {}
        None => (target.result_json, target.error) = (result.result, result.error),
    }
}

fn is_wanted(held: &CommandView, now: Now, trust: &Trust, request: &GetCommandsRequest, part: Part) -> bool {
    let agent = request.target_id.as_str();
    let ranks: Vec<Rank> = held
        .targets_now(now)
        .filter(|(target, _)| agent.is_empty() || *target == agent)
        .map(|(_, rank)| rank)
        .collect();
    let pending = ranks.contains(&Rank::Pending);
    let may_run = || !held.cancel_requested && trust.allows(&held.issuer());
    let asked = || {
        let status = CommandStatus::from_str_name(Rank::overall(ranks.iter().copied()).name()).map_or(0, i32::from);
        request.status.is_empty() || request.status.contains(&status)
    };
    let of_part = match part {
        Part::All => true,
        Part::Pending => pending && may_run(),
        Part::Rest => !(pending && may_run()),
    };
    !ranks.is_empty() && of_part && (!request.pending_only || (pending && may_run())) && asked()
}

/// Encodes the page token with which a list continues after this place.
fn token(part: Part, place: &Place) -> Vec<u8> {
    let mut token = vec![part as u8];
    token.extend_from_slice(&place.0.to_be_bytes());
    token.extend_from_slice(place.1.as_bytes());
    token
}

/// Encodes the page token with which a part begins.
fn first_token(part: Part) -> Vec<u8> {
    token(part, &(i64::MIN, "".into()))
}

fn parse_token(token: &[u8]) -> Result<(Part, Place), CallError> {
    let wrong = || CallError::new(Code::InvalidArgument, "page_token is none that this call gave");
    let ([part, made @ ..], id) = token.split_first_chunk::<9>().ok_or_else(wrong)?;
    let part = [Part::All, Part::Pending, Part::Rest].into_iter().find(|known| *known as u8 == *part);
    let made = i64::from_be_bytes(*made);
    let id = std::str::from_utf8(id).map_err(|_| wrong())?;
    Ok((part.ok_or_else(wrong)?, (made, id.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_is_read_as_it_was_given_and_nothing_else_is_one() {
        for place in [(7, "k1".into()), (-1, "é".into()), (i64::MIN, "".into())] {
            for part in [Part::All, Part::Pending, Part::Rest] {
                assert_eq!(parse_token(&token(part, &place)), Ok((part, place.clone())));
            }
        }
        for wrong in [&b"x"[..], &[9; 12], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff]] {
            assert_eq!(parse_token(wrong).expect_err("malformed").code, Code::InvalidArgument);
        }
    }
}

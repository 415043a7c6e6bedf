//! Encoding of commands and results within a record (docs/storage.md, "Commands").

use super::content::{result_state, state};
use super::{Command, CommandResult, Deadline, Rank, Signed};
use crate::clock::BootId;
use crate::store::codec::{Bytes, put_bytes, put_varint};

const COMMAND: u8 = 1;
const RESULT: u8 = 2;
const CANCEL_REQUESTED: u8 = 1;
const HAS_DEADLINE: u8 = 2;
const HAS_ENDED: u8 = 4;

pub(in crate::store) fn encode(out: &mut Vec<u8>, command: &Command) {
    out.push(COMMAND);
    put_bytes(out, &command.signed.body);
    out.extend_from_slice(&command.signed.signature);
    put_varint(out, command.ranks.len() as u64);
    out.extend(command.ranks.iter().map(|rank| *rank as u8));
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let timed = command.deadline != Deadline::Never;
    let flags =
        [(command.cancel_requested, CANCEL_REQUESTED), (timed, HAS_DEADLINE), (command.ended.is_some(), HAS_ENDED)];
    out.push(flags.into_iter().map(|(set, bit)| flag(set, bit)).sum());
    if let Deadline::At { boot, boot_ms } = command.deadline {
        out.extend_from_slice(&boot.0);
        put_varint(out, boot_ms);
    }
    command.ended.into_iter().for_each(|age| put_varint(out, age));
    put_bytes(out, command.json.as_bytes());
}

pub(in crate::store) fn encode_result(out: &mut Vec<u8>, result: &CommandResult) {
    out.extend_from_slice(&[RESULT, result.rank as u8]);
    put_bytes(out, result.result.as_bytes());
    put_bytes(out, result.error.as_bytes());
    put_bytes(out, result.json.as_bytes());
}

/// A parsed command or result, with the JSON that ends it.
pub(in crate::store) enum Parsed<'a> {
    Command(CommandRef<'a>, &'a str),
    Result(ResultRef<'a>, &'a str),
}

/// A [`Command`] over borrowed bytes.
#[derive(Clone, Debug)]
pub(in crate::store) struct CommandRef<'a> {
    body: &'a [u8],
    signature: [u8; 64],
    ranks: &'a [u8],
    cancel_requested: bool,
    deadline: Deadline,
    ended: Option<u64>,
}

/// A [`CommandResult`] over borrowed bytes.
#[derive(Clone, Debug)]
pub(in crate::store) struct ResultRef<'a> {
    rank: Rank,
    result: &'a str,
    error: &'a str,
}

pub(in crate::store) fn parse<'a>(rest: &mut Bytes<'a>) -> Option<Parsed<'a>> {
    match rest.byte()? {
        COMMAND => {
            let command = CommandRef::parse(rest)?;
            Some(Parsed::Command(command, rest.text()?))
        }
        RESULT => {
            let result =
                ResultRef { rank: Rank::from_number(rest.byte()?)?, result: rest.text()?, error: rest.text()? };
            Some(Parsed::Result(result, rest.text()?))
        }
        _ => None,
    }
}

impl<'a> CommandRef<'a> {
    fn parse(rest: &mut Bytes<'a>) -> Option<CommandRef<'a>> {
        let (body, signature) = (rest.bytes()?, rest.array()?);
        let ranks = rest.bytes()?;
        if !ranks.iter().all(|rank| Rank::from_number(*rank).is_some()) {
            return None;
        }
        let flags = rest.byte()?;
        let deadline = match flags & HAS_DEADLINE {
            0 => Deadline::Never,
            _ => Deadline::At { boot: BootId(rest.array()?), boot_ms: rest.varint()? },
        };
        let ended = if flags & HAS_ENDED == 0 { None } else { Some(rest.varint()?) };
        let cancel_requested = flags & CANCEL_REQUESTED != 0;
        Some(CommandRef { body, signature, ranks, cancel_requested, deadline, ended })
    }

    fn signed(&self) -> Signed {
        Signed { body: self.body.to_vec(), signature: self.signature }
    }

    /// Same as [`Command::state`].
    pub(in crate::store) fn state(&self) -> Vec<u8> {
        state(&self.signed().digest(), self.ranks.iter().copied(), self.cancel_requested)
    }

    pub(in crate::store) fn to_command(&self, json: String) -> Command {
        Command {
            signed: self.signed(),
            ranks: self.ranks.iter().filter_map(|rank| Rank::from_number(*rank)).collect(),
            cancel_requested: self.cancel_requested,
            deadline: self.deadline,
            ended: self.ended,
            json,
        }
    }
}

impl ResultRef<'_> {
    /// Same as [`CommandResult::state`].
    pub(in crate::store) fn state(&self) -> Vec<u8> {
        result_state(self.rank as u8, self.result, self.error)
    }

    pub(in crate::store) fn to_result(&self, json: String) -> CommandResult {
        CommandResult { rank: self.rank, result: self.result.to_owned(), error: self.error.to_owned(), json }
    }
}

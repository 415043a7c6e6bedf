//! The subcommands for commands to agents: send, list, wait and cancel.

use std::collections::BTreeMap;
use std::time::Duration;

use peat_ipc::sidecar as pb;

use super::arguments::{Cancel, Commands, Send};
use super::documents::{self, content};
use super::failure::{Failure, exit};
use super::note;
use super::output::Output;
use super::remote::{self, Connection};
use crate::clock;
use crate::config::{FleetSettings, Machine, ttl};
use crate::random::{RandomExt, System};

/// Number of commands requested per page.
const PAGE: u32 = 500;
/// Columns of the list, with their widths on a terminal.
const COLUMNS: [(&str, usize); 6] = [("ID", 32), ("TYPE", 16), ("TO", 24), ("STATUS", 10), ("DONE", 6), ("ERROR", 0)];

/// Prints the commands page by page, so that a long list takes no more memory than a short one.
pub(super) fn commands(command: &Commands) -> Result<(), Failure> {
    let mut connection = remote::connect(command)?;
    let mut request = pb::GetCommandsRequest {
        target_id: command.agent.clone().unwrap_or_default(),
        pending_only: command.pending,
        status: command.status.iter().map(|status| status.0.into()).collect(),
        page_size: PAGE,
        ..pb::GetCommandsRequest::default()
    };
    let mut output = Output::stdout(command.json);
    output.begin_list("commands")?;
    loop {
        connection.renew();
        let page = connection.call(&request)?;
        for command in &page.commands {
            output.element(command, |out| out.next_row(COLUMNS, &row(command)))?;
        }
        if page.next_page_token.is_empty() {
            return output.end_list();
        }
        request.page_token = page.next_page_token;
    }
}

fn row(command: &pb::Command) -> [String; 6] {
    let done = command.targets.iter().filter(|target| is_over(target.status())).count();
    let to = match command.group.as_str() {
        _ if command.all => "all".to_owned(),
        "" => command.target_id.clone(),
        group => format!("group {group}"),
    };
    let status = match word(command.status()) {
        status if command.cancel_requested && !is_over(command.status()) => format!("{status}, cancel requested"),
        status => status,
    };
    let done = format!("{done}/{}", command.targets.len());
    [command.id.clone(), command.command_type.clone(), to, status, done, command.error.clone()]
}

/// Returns `EXECUTING` for `COMMAND_STATUS_EXECUTING`.
fn word(status: pb::CommandStatus) -> String {
    status.as_str_name().trim_start_matches("COMMAND_STATUS_").to_owned()
}

fn is_over(status: pb::CommandStatus) -> bool {
    use pb::CommandStatus::{Executing, Pending, Unspecified};
    !matches!(status, Unspecified | Pending | Executing)
}

pub(super) fn cancel(command: &Cancel) -> Result<(), Failure> {
    let request = pb::CancelCommandRequest { id: command.id.clone() };
    let response = remote::connect(command)?.call(&request)?;
    let running = response.targets.iter().filter(|target| !is_over(target.status())).count();
    if running > 0 {
        note(&format!("requested; {running} of {} have not confirmed it yet", response.targets.len()));
    }
    let rows: Vec<_> = response.targets.iter().map(|t| [t.agent_id.clone(), word(t.status())]).collect();
    Output::stdout(command.json).response(&response, |out| out.table(["AGENT", "STATUS"], &rows))
}

pub(super) fn send(command: &Send) -> Result<(), Failure> {
    let body = body(command)?;
    let id = body.id.clone();
    let mut connection = remote::connect(command)?;
    if command.wait {
        return send_and_wait(command, connection, body);
    }
    connection.call(&pb::PutCommandRequest { command: Some(body) })?;
    let sent = find(&mut connection, &id)?;
    Output::stdout(command.json).response(&sent, |out| out.line(&id))
}

fn body(command: &Send) -> Result<pb::Command, Failure> {
    let addressed = [command.agent.is_some(), command.group.is_some(), command.all];
    if addressed.iter().filter(|given| **given).count() != 1 {
        return Err(Failure::usage("give one of --agent ID, --group G and --all"));
    }
    let created_at = now_s();
    let expires_at = time_to_live(command.ttl.as_deref())?.map_or(0, |ttl| created_at + seconds_up(ttl));
    Ok(pb::Command {
        id: new_id(),
        target_id: command.agent.clone().unwrap_or_default(),
        group: command.group.clone().unwrap_or_default(),
        all: command.all,
        command_type: command.command_type.clone(),
        payload_json: command.payload.as_deref().map(content).transpose()?.unwrap_or_default(),
        created_at,
        expires_at,
        ..pb::Command::default()
    })
}

/// Returns the time to live; `None` for a command without one.
fn time_to_live(given: Option<&str>) -> Result<Option<Duration>, Failure> {
    match given {
        Some("0") => Ok(None),
        Some(text) => ttl(text).map(Some).map_err(|why| Failure::usage(format!("--ttl: {why}"))),
        None => match Machine::this()?.environment.get("PEAT_NODE_COMMAND_TTL") {
            Some(text) => {
                let parsed = ttl(text).map(Some);
                parsed.map_err(|why| Failure::configuration(format!("PEAT_NODE_COMMAND_TTL: {why}")))
            }
            None => Ok(Some(FleetSettings::default().command_ttl)),
        },
    }
}

fn seconds_up(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).unwrap_or(i64::MAX)
}

/// Returns the wall clock in Unix seconds. Only the difference to expires_at counts, so a wrong clock does no harm; 0 would mean
/// unset.
fn now_s() -> i64 {
    (clock::shell::now().wall_ms / 1_000).max(1)
}

fn new_id() -> String {
    System::default().array::<16>().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn find(connection: &mut Connection, id: &str) -> Result<pb::Command, Failure> {
    let request = pb::GetCommandsRequest { id: id.to_owned(), ..pb::GetCommandsRequest::default() };
    let found = connection.call(&request)?.commands.pop();
    found.ok_or_else(|| Failure::new(exit::NOT_FOUND, format!("there is no command {id} any more")))
}

/// Columns of `send --wait`, with their widths on a terminal.
const STEPS: [(&str, usize); 3] = [("AGENT", 32), ("STATUS", 10), ("RESULT", 0)];

/// Sends a command, then prints the state of each agent whenever it changes, until all have ended.
fn send_and_wait(command: &Send, mut connection: Connection, body: pb::Command) -> Result<(), Failure> {
    let id = body.id.clone();
    let mut watcher = remote::connect(command)?;
    // The position is taken before the command exists, so the subscription misses nothing even if it begins late.
    let (resume_after, resume_run) = documents::now(&mut watcher)?;
    let collections = vec!["commands".into()];
    let request = pb::SubscribeRequest { collections, resume_after, resume_run, ..pb::SubscribeRequest::default() };
    let mut changes = watcher.client().subscribe(&request)?;
    connection.call(&pb::PutCommandRequest { command: Some(body) })?;
    if !command.json {
        note(&id);
    }
    let mut output = Output::stdout(command.json);
    let mut shown = BTreeMap::new();
    loop {
        connection.renew();
        let now = find(&mut connection, &id)?;
        show_steps(&mut output, &now, &mut shown, command.json)?;
        if now.targets.iter().all(|target| is_over(target.status())) {
            return verdict(&now);
        }
        loop {
            let change = changes.next_change()?;
            let change = change.ok_or_else(|| Failure::new(exit::UNREACHABLE, "the node ended the stream"))?;
            if change.doc_id == id || change.doc_id.split_once(':').is_some_and(|(of, _)| of == id) {
                break;
            }
        }
    }
}

fn show_steps(
    output: &mut Output<std::io::BufWriter<std::io::Stdout>>,
    now: &pb::Command,
    shown: &mut BTreeMap<String, pb::TargetStatus>,
    json: bool,
) -> Result<(), Failure> {
    let news: Vec<_> = now.targets.iter().filter(|target| shown.get(&target.agent_id) != Some(target)).collect();
    if json && !news.is_empty() {
        output.response(now, |_| Ok(()))?;
    }
    for target in news {
        if !json {
            let row = [target.agent_id.clone(), word(target.status()), words(target)];
            output.print(|out| out.next_row(STEPS, &row))?;
        }
        shown.insert(target.agent_id.clone(), target.clone());
    }
    Ok(())
}

/// Returns the error, progress or result of a target, the first that is present.
fn words(target: &pb::TargetStatus) -> String {
    match target {
        _ if !target.error.is_empty() => target.error.clone(),
        _ if target.percent > 0 => format!("{} % {}", target.percent, target.progress).trim_end().to_owned(),
        _ if !target.progress.is_empty() => target.progress.clone(),
        _ => target.result_json.clone(),
    }
}

fn verdict(command: &pb::Command) -> Result<(), Failure> {
    let completed = |target: &&pb::TargetStatus| target.status() == pb::CommandStatus::Completed;
    let done = command.targets.iter().filter(completed).count();
    if done == command.targets.len() {
        Ok(())
    } else {
        Err(Failure::failed(format!("{done} of {} completed it", command.targets.len())))
    }
}

//! Output on stdout: JSON, a table on a terminal, or the same rows separated by tabs for a pipe.

use std::io::{self, IsTerminal, Write};

use super::failure::{Failure, output_failed};
use crate::schema::{self, Described, Style};

/// Stdout and its format.
#[derive(Debug)]
pub(super) struct Output<W> {
    out: W,
    json: bool,
    terminal: bool,
    /// True once the headings of an unbounded table, or the first element of a JSON list, have been written.
    headed: bool,
}

impl Output<io::BufWriter<io::Stdout>> {
    /// Returns the process's stdout.
    pub(super) fn stdout(json: bool) -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        Output { out: io::BufWriter::new(out), json, terminal, headed: false }
    }
}

impl<W: Write> Output<W> {
    /// Writes a response: as JSON if requested, else by `plain`.
    pub(super) fn response<M: Described>(
        &mut self,
        message: &M,
        plain: impl FnOnce(&mut Output<W>) -> io::Result<()>,
    ) -> Result<(), Failure> {
        if self.json {
            self.print(|output| writeln!(output.out, "{}", schema::json(message, Style::Full)))
        } else {
            self.print(plain)
        }
    }

    /// Begins a response with a list as its only field, which may be written in parts.
    pub(super) fn begin_list(&mut self, name: &str) -> Result<(), Failure> {
        let open = if self.json { write!(self.out, "{{\"{name}\":[") } else { Ok(()) };
        open.map_err(|cause| output_failed(&cause))
    }

    /// Writes the next element of a list: as JSON if requested, else by `plain`.
    pub(super) fn element<M: Described>(
        &mut self,
        message: &M,
        plain: impl FnOnce(&mut Output<W>) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let written = if self.json {
            let separator = if std::mem::replace(&mut self.headed, true) { "," } else { "" };
            write!(self.out, "{separator}{}", schema::json(message, Style::Full))
        } else {
            plain(self)
        };
        written.map_err(|cause| output_failed(&cause))
    }

    /// Ends the list.
    pub(super) fn end_list(&mut self) -> Result<(), Failure> {
        let json = self.json;
        self.print(|output| if json { writeln!(output.out, "]}}") } else { Ok(()) })
    }

    /// Runs `write` and flushes, so that a reader of the pipe sees the output at once.
    pub(super) fn print(&mut self, write: impl FnOnce(&mut Output<W>) -> io::Result<()>) -> Result<(), Failure> {
        write(self).and_then(|()| self.out.flush()).map_err(|cause| output_failed(&cause))
    }

    /// Writes one line.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Writes rows under headings. Without a terminal there are no headings, and one tab between columns.
    pub(super) fn table<const N: usize>(&mut self, headings: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
        let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| visible(cell))).collect();
        if !self.terminal {
            return rows.iter().try_for_each(|row| writeln!(self.out, "{}", row.join("\t")));
        }
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([headings[column].len()]).max().unwrap_or(0)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        self.row(&headings, &widths)?;
        rows.iter().try_for_each(|row| self.row(&row.each_ref().map(String::as_str), &widths))
    }

    /// Writes the next row of an unbounded table: the widths are fixed in advance, the headings are written once.
    pub(super) fn next_row<const N: usize>(
        &mut self,
        headings: [(&str, usize); N],
        row: &[String; N],
    ) -> io::Result<()> {
        let row = row.each_ref().map(|cell| visible(cell));
        if !self.terminal {
            return writeln!(self.out, "{}", row.join("\t"));
        }
        let widths = headings.map(|(_, width)| width);
        if !std::mem::replace(&mut self.headed, true) {
            self.row(&headings.map(|(heading, _)| heading), &widths)?;
        }
        self.row(&row.each_ref().map(String::as_str), &widths)
    }

    fn row<const N: usize>(&mut self, cells: &[&str; N], widths: &[usize; N]) -> io::Result<()> {
        let padded = cells.iter().zip(widths).map(|(cell, &width)| format!("{cell:width$}"));
        writeln!(self.out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())
    }

    /// Writes names and values, one pair per line.
    pub(super) fn fields(&mut self, fields: &[(&str, String)]) -> io::Result<()> {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in fields {
            let value = visible(value);
            if self.terminal {
                writeln!(self.out, "{name:width$}  {value}")?;
            } else {
                writeln!(self.out, "{name}\t{value}")?;
            }
        }
        Ok(())
    }
}

/// Replaces control characters in text of other origin, because they could move a terminal's cursor or break a row.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use peat_ipc::sidecar::ListDocumentsResponse;

    use super::*;

    fn written(json: bool, terminal: bool, write: impl FnOnce(&mut Output<&mut Vec<u8>>)) -> String {
        let mut bytes = Vec::new();
        write(&mut Output { out: &mut bytes, json, terminal, headed: false });
        String::from_utf8(bytes).expect("text")
    }

    fn rows() -> [[String; 2]; 2] {
        [["a".into(), "yes".into()], ["long".into(), "\u{1b}[2J".into()]]
    }

    #[test]
    fn a_terminal_gets_columns_and_a_pipe_gets_tabs() {
        let table = |out: &mut Output<&mut Vec<u8>>| out.table(["ID", "UP"], &rows()).expect("memory");
        assert_eq!(written(false, true, table), "ID    UP\na     yes\nlong  \u{fffd}[2J\n");
        assert_eq!(written(false, false, table), "a\tyes\nlong\t\u{fffd}[2J\n");
    }

    #[test]
    fn a_stream_is_headed_once() {
        let stream = |out: &mut Output<&mut Vec<u8>>| {
            rows().iter().for_each(|row| out.next_row([("ID", 3), ("UP", 0)], row).expect("memory"));
        };
        assert_eq!(written(false, true, stream), "ID   UP\na    yes\nlong  \u{fffd}[2J\n");
        assert_eq!(written(false, false, stream), "a\tyes\nlong\t\u{fffd}[2J\n");
    }

    #[test]
    fn a_list_that_comes_in_parts_is_one_object() {
        let agent = |id: &str| peat_ipc::sidecar::TargetStatus { agent_id: id.into(), ..Default::default() };
        let list = |out: &mut Output<&mut Vec<u8>>, agents: &[&str]| {
            out.begin_list("targets").expect("memory");
            agents.iter().for_each(|id| out.element(&agent(id), |out| out.line(id)).expect("memory"));
            out.end_list().expect("memory");
        };
        let json: serde_json::Value =
            serde_json::from_str(&written(true, false, |out| list(out, &["a", "b"]))).expect("JSON");
        assert_eq!(json["targets"][1]["agentId"], "b");
        assert_eq!(written(true, false, |out| list(out, &[])), "{\"targets\":[]}\n");
        assert_eq!(written(false, false, |out| list(out, &["a", "b"])), "a\nb\n");
    }

    #[test]
    fn json_replaces_the_table() {
        let message = ListDocumentsResponse { doc_ids: vec!["a".into()] };
        let response =
            |out: &mut Output<&mut Vec<u8>>| out.response(&message, |out| out.line("plain")).expect("memory");
        assert_eq!(written(true, true, response), "{\"docIds\":[\"a\"]}\n");
        assert_eq!(written(false, true, response), "plain\n");
    }
}

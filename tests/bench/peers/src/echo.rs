//! The lower bound: blocking reads and writes of the right number of bytes, and nothing else.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::{Caller, Failure, Sizes};

pub(crate) fn serve(path: &Path, sizes: Sizes) -> Result<(), Failure> {
    let listener = UnixListener::bind(path)?;
    for stream in listener.incoming() {
        // The measurement ends when its only client disconnects.
        let _ = answer(stream?, sizes);
    }
    Ok(())
}

fn answer(mut stream: UnixStream, sizes: Sizes) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let response = vec![7; sizes.response];
    let mut owed = 0;
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        owed += read;
        let complete = owed / sizes.request;
        owed %= sizes.request;
        match complete {
            0 => {}
            1 => stream.write_all(&response)?,
            _ => stream.write_all(&response.repeat(complete))?,
        }
    }
}

pub(crate) struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
    response_bytes: usize,
}

impl Client {
    pub(crate) fn connect(path: &Path, sizes: Sizes) -> Result<Client, Failure> {
        Ok(Client {
            stream: UnixStream::connect(path)?,
            request: vec![1; sizes.request],
            buffer: vec![0; 64 << 10],
            response_bytes: sizes.response,
        })
    }

    fn call(&mut self) -> std::io::Result<()> {
        self.stream.write_all(&self.request)?;
        self.stream.read_exact(&mut self.buffer[..self.response_bytes])
    }
}

impl Caller for Client {
    fn one_by_one(&mut self, calls: usize, took: &mut Vec<Duration>) -> Result<(), Failure> {
        for _ in 0..calls {
            let begun = Instant::now();
            self.call()?;
            took.push(begun.elapsed());
        }
        Ok(())
    }

    fn in_flight(&mut self, calls: usize, width: usize) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let (mut sent, mut answered, mut bytes) = (0, 0, 0);
        while answered < calls {
            let more = (calls - sent).min(width - (sent - answered));
            self.stream.write_all(&self.request.repeat(more))?;
            sent += more;
            bytes += self.stream.read(&mut self.buffer)?;
            answered += bytes / self.response_bytes;
            bytes %= self.response_bytes;
        }
        Ok(begun.elapsed())
    }
}

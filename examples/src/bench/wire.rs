//! WebSocket frames on a non-blocking socket, as both programs of the benchmark need them.

use std::io::{self, Read, Write};

use mio::net::TcpStream;

/// The opcodes that the benchmark tells apart.
pub(crate) const TEXT: u8 = 1;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// One final frame. A masked one has the key 0, which leaves the payload as it is.
pub(crate) fn frame(opcode: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut out = vec![0x80 | opcode];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..126), _) => out.push(bit | short),
        (_, Ok(length)) => {
            out.push(bit | 126);
            out.extend(length.to_be_bytes());
        }
        _ => {
            out.push(bit | 127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend([0; 4]);
    }
    out.extend(payload);
    out
}

/// A connection, with what was read but not yet taken and what could not be written yet.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    inbox: Vec<u8>,
    taken: usize,
    rest: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, inbox: Vec::new(), taken: 0, rest: Vec::new() }
    }

    /// Reads all there is; false when the other side has gone.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> bool {
        self.inbox.drain(..self.taken);
        self.taken = 0;
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(n) => self.inbox.extend(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// The next HTTP head, when it is whole.
    pub(crate) fn head(&mut self) -> Option<String> {
        let end = self.inbox.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        self.taken = end;
        Some(String::from_utf8_lossy(&self.inbox[..end]).into_owned())
    }

    /// The next frame, when it is whole: its opcode and its unmasked payload.
    pub(crate) fn take(&mut self) -> Option<(u8, &[u8])> {
        if self.taken == self.inbox.len() {
            (self.inbox, self.taken) = (Vec::new(), 0);
        }
        let bytes = &mut self.inbox[self.taken..];
        let (opcode, masked) = (bytes.first()? & 15, bytes.get(1)? & 0x80 != 0);
        let (length, mut at) = match bytes[1] & 0x7f {
            126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?).try_into().ok()?, 10),
            short => (usize::from(short), 2),
        };
        let mut key = [0; 4];
        if masked {
            key.copy_from_slice(bytes.get(at..at + 4)?);
            at += 4;
        }
        let payload = bytes.get_mut(at..at.checked_add(length)?)?;
        if key != [0; 4] {
            payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        }
        self.taken += at + length;
        Some((opcode, payload))
    }

    /// Writes these bytes in one write when nothing waits before them, and keeps the rest.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if !self.rest.is_empty() {
            self.rest.extend(bytes);
            return;
        }
        // A broken connection shows when it is read.
        let written = self.stream.write(bytes).unwrap_or(0);
        self.rest.extend(&bytes[written..]);
    }

    /// Writes what waits, as far as it goes.
    pub(crate) fn flush(&mut self) {
        while !self.rest.is_empty() {
            match self.stream.write(&self.rest) {
                Ok(n) if n > 0 => drop(self.rest.drain(..n)),
                _ => return,
            }
        }
        self.rest = Vec::new();
    }
}

//! The machine that reads: bytes of a client in, frames out (RFC 6455, section 5). No IO, no time.

use std::collections::VecDeque;
use std::io::Cursor;
use std::mem;

use bytes::Bytes;
use tidings_core::{Frame, ReadError};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::framing::{MAX_CONTROL_BYTES, NO_CODE, pong_frame};

/// Decodes what one client sends.
///
/// Bytes may be split anywhere. Between messages it holds no memory of its own; within one it
/// holds what has arrived, never what a header merely promises.
///
/// ```
/// use std::collections::VecDeque;
/// let mut decoder = tidings_transport_ws::Decoder::new(1024);
/// let mut frames = VecDeque::new();
/// decoder.feed(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'], &mut frames)?;
/// assert!(matches!(&frames[0], tidings_core::Frame::Message(text) if text == "hi"));
/// # Ok::<_, tidings_core::ReadError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    max_message_bytes: usize,
    state: State,
    /// The beginning of a header that has not arrived whole.
    head: [u8; MAX_HEADER_BYTES],
    head_len: usize,
    /// What has arrived of a message, unmasked.
    message: Vec<u8>,
    /// How much of `message` is known to be text; what follows is the beginning of a character.
    text: usize,
    /// Whether the next data frame continues `message`.
    fragmented: bool,
    /// What has arrived of a control frame, unmasked; it may come between the frames of a message.
    control: Vec<u8>,
    closed: Option<u16>,
}

impl Decoder {
    /// A decoder that takes messages of up to `max_message_bytes`, fragmented or not.
    pub fn new(max_message_bytes: usize) -> Self {
        Self {
            max_message_bytes,
            state: State::Head,
            head: [0; MAX_HEADER_BYTES],
            head_len: 0,
            message: Vec::new(),
            text: 0,
            fragmented: false,
            control: Vec::new(),
            closed: None,
        }
    }

    /// Takes the next bytes and appends the frames that they complete.
    ///
    /// After a close frame or an error, bytes are ignored.
    ///
    /// # Errors
    /// What [`ReadError`] says, save for `Io`. The frames before the error are in `out`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut VecDeque<Frame>) -> Result<(), ReadError> {
        self.feed_some(&mut &*bytes, usize::MAX, out)
    }

    /// The same, but stops once `out` holds `frames` frames: the rest stays in `bytes`.
    ///
    /// # Errors
    /// As those of [`feed`](Self::feed).
    pub fn feed_some(
        &mut self,
        bytes: &mut &[u8],
        frames: usize,
        out: &mut VecDeque<Frame>,
    ) -> Result<(), ReadError> {
        let fed = self.run(bytes, frames, out);
        if fed.is_err() || self.closed.is_some() {
            self.state = State::Ended;
            self.message = Vec::new();
            self.control = Vec::new();
        }
        fed
    }

    /// The code of the peer's close frame once it has come; 1005 when it carried none.
    pub fn closed(&self) -> Option<u16> {
        self.closed
    }

    /// Whether a frame or a message has begun and is not whole.
    pub(crate) fn is_within(&self) -> bool {
        self.head_len > 0 || self.fragmented || matches!(self.state, State::Payload(_))
    }

    fn run(
        &mut self,
        bytes: &mut &[u8],
        frames: usize,
        out: &mut VecDeque<Frame>,
    ) -> Result<(), ReadError> {
        while out.len() < frames {
            match &mut self.state {
                State::Ended => {
                    *bytes = &[];
                    return Ok(());
                }
                State::Head => match self.read_head(bytes)? {
                    Some(expected) => self.state = State::Payload(expected),
                    None => return Ok(()),
                },
                State::Payload(expected) => {
                    let is_data = expected.kind == Kind::Data;
                    let buffer = if is_data { &mut self.message } else { &mut self.control };
                    expected.take(bytes, buffer);
                    let whole = expected.missing == 0;
                    if is_data {
                        self.check_text()?;
                    }
                    if !whole {
                        return Ok(());
                    }
                    if let State::Payload(frame) = mem::replace(&mut self.state, State::Head) {
                        self.finish(&frame, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks at once whether what arrived can be text, so that a long message is not awaited in vain.
    fn check_text(&mut self) -> Result<(), ReadError> {
        match std::str::from_utf8(&self.message[self.text..]) {
            Ok(_) => self.text = self.message.len(),
            Err(error) if error.error_len().is_none() => self.text += error.valid_up_to(),
            Err(_) => return Err(ReadError::NotUtf8),
        }
        Ok(())
    }

    /// Takes header bytes; `None` when they do not suffice.
    fn read_head(&mut self, bytes: &mut &[u8]) -> Result<Option<Expected>, ReadError> {
        let had = self.head_len;
        let end = MAX_HEADER_BYTES.min(had + bytes.len());
        self.head[had..end].copy_from_slice(&bytes[..end - had]);
        let mut cursor = Cursor::new(&self.head[..end]);
        let parsed = FrameHeader::parse(&mut cursor);
        let parsed = parsed.map_err(|_| ReadError::Protocol("unknown opcode"))?;
        let Some((header, length)) = parsed else {
            self.head_len = end;
            *bytes = &[];
            return Ok(None);
        };
        let taken = cursor.position() as usize - had;
        *bytes = &bytes[taken..];
        self.head_len = 0;
        self.check(&header, length).map(Some)
    }

    /// What a header announces, or what is wrong with it.
    fn check(&self, header: &FrameHeader, length: u64) -> Result<Expected, ReadError> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(ReadError::Protocol("a reserved bit is set"));
        }
        let Some(mask) = header.mask else {
            return Err(ReadError::Protocol("a frame is not masked"));
        };
        let kind = match header.opcode {
            OpCode::Control(control) => {
                if !header.is_final {
                    return Err(ReadError::Protocol("a control frame is fragmented"));
                }
                if length > MAX_CONTROL_BYTES as u64 {
                    return Err(ReadError::Protocol("a control frame is too long"));
                }
                match control {
                    Control::Close => Kind::Close,
                    Control::Ping => Kind::Ping,
                    Control::Pong => Kind::Pong,
                    Control::Reserved(_) => return Err(ReadError::Protocol("unknown opcode")),
                }
            }
            OpCode::Data(data) => {
                match (data, self.fragmented) {
                    (Data::Continue, true) | (Data::Text, false) => {}
                    (Data::Binary, false) => return Err(ReadError::Unsupported),
                    (Data::Continue, false) => {
                        return Err(ReadError::Protocol("nothing to continue"));
                    }
                    (Data::Text | Data::Binary, true) => {
                        return Err(ReadError::Protocol("a message begins within another"));
                    }
                    (Data::Reserved(_), _) => return Err(ReadError::Protocol("unknown opcode")),
                }
                if length > (self.max_message_bytes - self.message.len()) as u64 {
                    return Err(ReadError::TooBig);
                }
                Kind::Data
            }
        };
        // It is at most `max_message_bytes` or 125.
        let missing = length as usize;
        Ok(Expected { kind, last: header.is_final, mask, empty: missing == 0, missing })
    }

    /// A frame is whole.
    fn finish(&mut self, frame: &Expected, out: &mut VecDeque<Frame>) -> Result<(), ReadError> {
        if frame.kind == Kind::Data {
            self.fragmented = !frame.last;
            if self.fragmented && frame.empty {
                // There may be any number of them in a message.
                out.push_back(Frame::Alive);
            }
            if frame.last {
                let text = mem::take(&mut self.message).into_boxed_slice();
                if mem::take(&mut self.text) < text.len() {
                    return Err(ReadError::NotUtf8);
                }
                out.push_back(Frame::Message(Bytes::from(text)));
            }
            return Ok(());
        }
        let payload = mem::take(&mut self.control);
        match frame.kind {
            Kind::Ping => out.push_back(Frame::Respond(pong_frame(&payload))),
            Kind::Pong => out.push_back(Frame::Alive),
            Kind::Close => {
                self.closed = Some(close_code(&payload)?);
                self.state = State::Ended;
            }
            Kind::Data => {}
        }
        Ok(())
    }
}

/// The code in a close frame's payload (RFC 6455, sections 5.5.1 and 7.4).
fn close_code(payload: &[u8]) -> Result<u16, ReadError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        let empty = payload.is_empty();
        return if empty { Ok(NO_CODE) } else { Err(ReadError::Protocol("half a close code")) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(ReadError::Protocol("a close code that must not be sent"));
    }
    std::str::from_utf8(reason).map_err(|_| ReadError::NotUtf8)?;
    Ok(code)
}

#[derive(Debug)]
enum State {
    /// A header comes next.
    Head,
    /// The rest of a payload comes next.
    Payload(Expected),
    /// Nothing more is read.
    Ended,
}

/// A frame whose header is read.
#[derive(Debug)]
struct Expected {
    kind: Kind,
    /// Whether it ends its message.
    last: bool,
    /// Turned so that it begins with the byte for the next one to come.
    mask: [u8; 4],
    empty: bool,
    missing: usize,
}

impl Expected {
    /// Moves what there is of the payload from `bytes` to `buffer`, unmasked.
    fn take(&mut self, bytes: &mut &[u8], buffer: &mut Vec<u8>) {
        let (now, later) = bytes.split_at(self.missing.min(bytes.len()));
        *bytes = later;
        let start = buffer.len();
        buffer.extend_from_slice(now);
        unmask(&mut buffer[start..], self.mask);
        self.mask.rotate_left(now.len() % 4);
        self.missing -= now.len();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Ping,
    Pong,
    Close,
}

/// Takes the mask off (RFC 6455, section 5.3), eight bytes at a time.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Longest header of a masked frame (RFC 6455, section 5.2).
const MAX_HEADER_BYTES: usize = 14;

#[cfg(test)]
mod tests;

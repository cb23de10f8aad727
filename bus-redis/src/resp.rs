//! What goes over a connection that publishes: commands as bytes, and answers read from bytes (RESP 2).
//!
//! A publication is a few hundred nanoseconds of work for Redis; a client that takes a command apart into values, and
//! builds one for each `+QUEUED`, works longer on it than Redis does.

use redis::{Cmd, Value, parse_redis_value};

/// Commands as they are sent, and how many there are.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    bytes: Vec<u8>,
    count: usize,
}

impl Commands {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), count: 0 }
    }

    pub(crate) fn add<const PARTS: usize>(&mut self, parts: [&[u8]; PARTS]) {
        self.head(b'*', PARTS);
        for part in parts {
            self.head(b'$', part.len());
            self.bytes.extend_from_slice(part);
            self.bytes.extend_from_slice(b"\r\n");
        }
        self.count += 1;
    }

    pub(crate) fn append(&mut self, others: &Self) {
        self.bytes.extend_from_slice(&others.bytes);
        self.count += others.count;
    }

    fn head(&mut self, kind: u8, number: usize) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Answers that will come.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

impl From<&Cmd> for Commands {
    fn from(command: &Cmd) -> Self {
        Self { bytes: command.get_packed_command(), count: 1 }
    }
}

/// What came is no answer, so that nothing that follows can be told apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// An answer and its length in bytes; `None` when it is not all there yet.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Value, usize)>, Malformed> {
    read_within(bytes, DEPTH)
}

fn read_within(bytes: &[u8], depth: usize) -> Result<Option<(Value, usize)>, Malformed> {
    // By far the most answers.
    if bytes.starts_with(QUEUED) {
        return Ok(Some((Value::Okay, QUEUED.len())));
    }
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() > LONGEST_LINE { Err(Malformed) } else { Ok(None) };
    };
    let (line, rest) = (&bytes[1.min(end)..end], &bytes[end + 2..]);
    let start = end + 2;
    match bytes[0] {
        b':' => Ok(Some((Value::Int(number(line)?), start))),
        b'$' => match usize::try_from(number(line)?) {
            Err(_) => Ok(Some((Value::Nil, start))),
            Ok(length) if length > LONGEST_TEXT => Err(Malformed),
            Ok(length) if rest.len() < length + 2 => Ok(None),
            Ok(length) => {
                Ok(Some((Value::BulkString(rest[..length].to_vec()), start + length + 2)))
            }
        },
        b'*' => match usize::try_from(number(line)?) {
            Err(_) => Ok(Some((Value::Nil, start))),
            Ok(_) if depth == 0 => Err(Malformed),
            Ok(count) => {
                let (mut values, mut used) = (Vec::with_capacity(count.min(rest.len())), 0);
                for _ in 0..count {
                    let Some((value, length)) = read_within(&rest[used..], depth - 1)? else {
                        return Ok(None);
                    };
                    values.push(value);
                    used += length;
                }
                Ok(Some((Value::Array(values), start + used)))
            }
        },
        // Texts are rare, and errors have parts.
        b'+' | b'-' => match parse_redis_value(&bytes[..start]) {
            Ok(value) => Ok(Some((value, start))),
            Err(_) => Err(Malformed),
        },
        _ => Err(Malformed),
    }
}

fn number(line: &[u8]) -> Result<i64, Malformed> {
    std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or(Malformed)
}

const QUEUED: &[u8] = b"+QUEUED\r\n";
/// Arrays within each other; a script answers two.
const DEPTH: usize = 4;
/// Bytes of a line, which is a number or an error.
const LONGEST_LINE: usize = 64 << 10;
/// Bytes of a text: what Redis itself allows.
const LONGEST_TEXT: usize = 512 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_are_spelled_as_redis_reads_them() {
        let mut commands = Commands::default();
        commands.add([b"MULTI"]);
        commands.add([b"PUBLISH", b"news", b"a\r\nb"]);
        assert_eq!(commands.count(), 2);
        let expected = "*1\r\n$5\r\nMULTI\r\n*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$4\r\na\r\nb\r\n";
        assert_eq!(commands.bytes(), expected.as_bytes());
    }

    #[test]
    fn what_is_no_answer_is_malformed() {
        for text in ["x\r\n", "\r\n", ":\r\n", ":one\r\n", "$99999999999\r\n", "*1\r\n?\r\n"] {
            assert_eq!(read(text.as_bytes()), Err(Malformed), "{text:?}");
        }
        assert_eq!(read("*1\r\n".repeat(DEPTH + 1).as_bytes()), Err(Malformed));
        assert_eq!(read(&[b'+'; LONGEST_LINE + 1]), Err(Malformed));
    }

    fn value() -> impl Strategy<Value = (String, Value)> {
        let leaf = prop_oneof![
            Just(("+QUEUED\r\n".to_owned(), Value::Okay)),
            Just(("+PONG\r\n".to_owned(), Value::SimpleString("PONG".into()))),
            Just(("$-1\r\n".to_owned(), Value::Nil)),
            Just(("*-1\r\n".to_owned(), Value::Nil)),
            any::<i64>().prop_map(|n| (format!(":{n}\r\n"), Value::Int(n))),
            "\\PC{0,20}".prop_map(|s| {
                (format!("${}\r\n{s}\r\n", s.len()), Value::BulkString(s.into_bytes()))
            }),
        ];
        leaf.prop_recursive(3, 20, 5, |inner| {
            proptest::collection::vec(inner, 0..5).prop_map(|parts| {
                let (texts, values): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
                (format!("*{}\r\n{}", texts.len(), texts.concat()), Value::Array(values))
            })
        })
    }

    proptest! {
        #[test]
        fn an_answer_is_read_when_it_is_whole_and_not_before((text, value) in value(), more in "\\PC{0,9}") {
            let all = format!("{text}{more}");
            prop_assert_eq!(read(all.as_bytes()), Ok(Some((value, text.len()))));
            for end in 0..text.len() {
                prop_assert_eq!(read(&text.as_bytes()[..end]), Ok(None));
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes);
        }
    }

    #[test]
    fn an_error_keeps_its_code_and_text() {
        let Ok(Some((Value::ServerError(error), 27))) = read(b"-OOM command not allowed.\r\n+")
        else {
            panic!("it is an error");
        };
        assert_eq!((error.code(), error.details()), ("OOM", Some("command not allowed.")));
    }
}

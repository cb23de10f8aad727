use super::*;
use proptest::prelude::*;

const MAX: usize = 300;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const TEXT: u8 = 0x81;

/// A masked frame with this first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0xfe, 0x00, 0x9c];
    let mut out = vec![first];
    match payload.len() {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

#[derive(Debug, PartialEq)]
enum Seen {
    Message(Bytes),
    Respond(Bytes),
    Alive,
    Closed(u16),
    Failed(String),
}

fn read_all<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Seen> {
    let mut decoder = Decoder::new(MAX);
    let mut out = VecDeque::new();
    let mut failed = None;
    for piece in pieces {
        if let Err(error) = decoder.feed(piece, &mut out) {
            assert!(failed.is_none(), "one error at most");
            failed = Some(Seen::Failed(error.to_string()));
        }
    }
    let seen = out.into_iter().map(|frame| match frame {
        Frame::Message(text) => Seen::Message(text),
        Frame::Respond(bytes) => Seen::Respond(bytes),
        Frame::Alive => Seen::Alive,
        other => panic!("{other:?}"),
    });
    seen.chain(decoder.closed().map(Seen::Closed)).chain(failed).collect()
}

fn read(bytes: &[u8]) -> Vec<Seen> {
    read_all([bytes])
}

fn error(bytes: &[u8]) -> ReadError {
    Decoder::new(MAX).feed(bytes, &mut VecDeque::new()).expect_err("an error")
}

fn message(text: &str) -> Seen {
    Seen::Message(Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn a_message_comes_whole_or_in_fragments_with_control_frames_between() {
    assert_eq!(read(&frame(TEXT, "grüße".as_bytes())), [message("grüße")]);
    assert_eq!(read(&frame(TEXT, b"")), [message("")]);
    let text = "ü".as_bytes();
    let stream = [
        frame(0x01, &text[..1]),
        frame(PING, b"p"),
        frame(0x00, b""),
        frame(PONG, b"whatever"),
        frame(0x80, &text[1..]),
        frame(TEXT, b"next"),
    ];
    let pong = Seen::Respond(Bytes::from_static(b"\x8a\x01p"));
    // The empty fragment is a frame of its own, as pings and pongs are.
    let seen = [pong, Seen::Alive, Seen::Alive, message("ü"), message("next")];
    assert_eq!(read(&stream.concat()), seen);
}

#[test]
fn a_message_may_have_the_longest_length_and_no_more() {
    assert_eq!(read(&frame(TEXT, &[b'a'; MAX])), [message(&"a".repeat(MAX))]);
    // The header alone is enough.
    assert!(matches!(error(&frame(TEXT, &[b'a'; MAX + 1])[..8]), ReadError::TooBig));
    assert!(matches!(
        error(&[TEXT, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
        ReadError::TooBig
    ));

    let first = frame(0x01, &[b'a'; MAX - 1]);
    let fits = [first.clone(), frame(0x80, b"b")].concat();
    assert_eq!(read(&fits), [message(&format!("{}b", "a".repeat(MAX - 1)))]);
    let over = [first, frame(0x80, b"bc")[..6].to_vec()].concat();
    assert!(matches!(error(&over), ReadError::TooBig));
}

#[test]
fn a_control_frame_has_at_most_125_bytes_in_one_frame() {
    for first in [PING, PONG, CLOSE] {
        let payload = [[3, 0xe8].as_slice(), &[b'x'; 124]].concat();
        assert_eq!(read(&frame(first, &payload[..125])).len(), 1);
        assert!(matches!(error(&frame(first, &payload)), ReadError::Protocol(_)));
        assert!(matches!(error(&frame(first & 0x7f, b"")), ReadError::Protocol(_)));
    }
}

#[test]
fn the_protocol_is_kept() {
    let mut unmasked = frame(TEXT, b"");
    unmasked[1] &= 0x7f;
    let bad = [
        unmasked,
        frame(TEXT | 0x40, b"x"),
        frame(TEXT | 0x20, b"x"),
        frame(TEXT | 0x10, b"x"),
        frame(0x83, b"x"),
        frame(0x87, b"x"),
        frame(0x8b, b"x"),
        frame(0x8f, b"x"),
        frame(0x80, b"x"),
        frame(0x00, b"x"),
        [frame(0x01, b"x"), frame(TEXT, b"x")].concat(),
        [frame(0x01, b"x"), frame(0x82, b"x")].concat(),
    ];
    for bytes in bad {
        assert!(matches!(error(&bytes), ReadError::Protocol(_)), "{bytes:x?}");
    }
    assert!(matches!(error(&frame(0x82, b"x")), ReadError::Unsupported));
    assert!(matches!(error(&frame(0x02, b"x")), ReadError::Unsupported));
}

#[test]
fn text_is_utf8() {
    assert!(matches!(error(&frame(TEXT, b"\xff")), ReadError::NotUtf8));
    assert!(matches!(error(&frame(TEXT, b"\xc3")), ReadError::NotUtf8));
    let cut = [frame(0x01, b"\xc3"), frame(0x80, b"x")].concat();
    assert!(matches!(error(&cut), ReadError::NotUtf8));
    assert!(matches!(error(&frame(CLOSE, b"\x03\xe8\xff")), ReadError::NotUtf8));
}

#[test]
fn what_cannot_be_text_is_told_before_the_message_ends() {
    let mut decoder = Decoder::new(1000);
    let mut frames = VecDeque::new();
    // A character over two fragments, then the first byte of one that there is not, in a frame that goes on.
    for part in
        [frame(0x01, "kö".as_bytes()).as_slice(), &frame(0x00, b"\xe2\x82"), &frame(0x00, b"\xac")]
    {
        decoder.feed(part, &mut frames).expect("text so far");
    }
    let begun = frame(0x00, b"\xf4\x90 and more");
    let fed = decoder.feed(&begun[..begun.len() - 8], &mut frames);
    assert!(matches!(fed, Err(ReadError::NotUtf8)), "{fed:?}");
    assert!(frames.is_empty());
}

#[test]
fn it_decodes_no_more_frames_than_it_is_asked_for() {
    let mut decoder = Decoder::new(1000);
    let mut frames = VecDeque::new();
    let pings = frame(0x89, b"").repeat(10);
    let mut rest = pings.as_slice();
    decoder.feed_some(&mut rest, 4, &mut frames).expect("pings");
    assert_eq!((frames.len(), rest.len()), (4, pings.len() * 6 / 10));
    frames.clear();
    decoder.feed_some(&mut rest, 100, &mut frames).expect("pings");
    assert_eq!((frames.len(), rest.len()), (6, 0));
}

#[test]
fn fragments_of_one_byte_cost_what_they_carry() {
    let mut decoder = Decoder::new(1000);
    let mut frames = VecDeque::new();
    decoder.feed(&frame(0x01, b"x"), &mut frames).expect("a beginning");
    let one = frame(0x00, b"x");
    let fed = (0..).find_map(|_| decoder.feed(&one, &mut frames).err());
    assert!(matches!(fed, Some(ReadError::TooBig)), "{fed:?}");
    assert!(frames.is_empty());
    assert_eq!(decoder.message.capacity(), 0);
}

#[test]
fn fragments_that_carry_nothing_are_seen_each() {
    let stream =
        [frame(0x01, b""), frame(0x00, b"").repeat(3), frame(0x00, b"x"), frame(0x80, b"")];
    let mut seen: Vec<_> = (0..4).map(|_| Seen::Alive).collect();
    seen.push(message("x"));
    assert_eq!(read(&stream.concat()), seen);
}

#[test]
fn it_knows_whether_something_has_begun() {
    let stream = [frame(0x01, b"a"), frame(PING, b"b"), frame(0x80, b"c")].concat();
    let mut decoder = Decoder::new(MAX);
    let mut out = VecDeque::new();
    for (n, byte) in stream.iter().enumerate() {
        assert_eq!(decoder.is_within(), n > 0, "before byte {n}");
        decoder.feed(&[*byte], &mut out).expect("it is text");
    }
    assert!(!decoder.is_within() && out.len() == 2);
}

#[test]
fn a_close_frame_ends_it_with_its_code() {
    let closed = |payload: &[u8]| read(&[frame(CLOSE, payload), frame(TEXT, b"late")].concat());
    assert_eq!(closed(b""), [Seen::Closed(1005)]);
    assert_eq!(closed(b"\x03\xe8bye"), [Seen::Closed(1000)]);
    assert!(matches!(error(&frame(CLOSE, b"\x03")), ReadError::Protocol(_)));
    for code in [1000u16, 1003, 1007, 1014, 3000, 4999] {
        assert_eq!(closed(&code.to_be_bytes()), [Seen::Closed(code)]);
    }
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 2999, 5000, u16::MAX] {
        let error = error(&frame(CLOSE, &code.to_be_bytes()));
        assert!(matches!(error, ReadError::Protocol(_)), "{code}");
    }
}

#[test]
fn nothing_is_read_after_an_error() {
    let mut decoder = Decoder::new(MAX);
    let mut out = VecDeque::new();
    let stream = [frame(TEXT, b"before"), frame(0x82, b""), frame(TEXT, b"after")].concat();
    assert!(decoder.feed(&stream, &mut out).is_err());
    assert!(decoder.feed(&frame(TEXT, b"later"), &mut out).is_ok());
    assert_eq!(out.len(), 1);
}

#[test]
fn only_what_has_arrived_takes_memory_and_only_until_it_is_done() {
    let mut decoder = Decoder::new(1 << 30);
    let mut out = VecDeque::new();
    let header = [TEXT, 0xff, 0, 0, 0, 0, 0x3f, 0, 0, 0, 0, 0, 0, 0];
    assert!(decoder.feed(&header, &mut out).is_ok());
    assert!(decoder.feed(&[b'a'; 100], &mut out).is_ok());
    assert!((100..=256).contains(&decoder.message.capacity()));

    let mut decoder = Decoder::new(1000);
    for piece in [frame(0x01, &[b'a'; 900]), frame(PING, b"abc"), frame(0x80, b"")] {
        assert!(decoder.feed(&piece, &mut out).is_ok());
    }
    assert_eq!(out.len(), 2);
    assert_eq!((decoder.message.capacity(), decoder.control.capacity()), (0, 0));
}

/// Frames that mostly belong together, and some that do not.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let text = "\\PC{0,60}".prop_map(|text| frame(TEXT, text.as_bytes()));
    let fragments = ("\\PC{0,40}", "\\PC{0,40}", any::<bool>()).prop_map(|(a, b, ping)| {
        let between = if ping { frame(PING, b"between") } else { Vec::new() };
        [frame(0x01, a.as_bytes()), between, frame(0x80, b.as_bytes())].concat()
    });
    let control = (prop_oneof![Just(PING), Just(PONG)], "[a-z]{0,20}")
        .prop_map(|(first, payload)| frame(first, payload.as_bytes()));
    let any_frame = (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..400))
        .prop_map(|(first, payload)| frame(first, &payload));
    let noise = proptest::collection::vec(any::<u8>(), 0..20);
    let close = "[a-z]{0,9}".prop_map(|r| frame(CLOSE, &[&[3, 0xe8][..], r.as_bytes()].concat()));
    let part = prop_oneof![
        20 => text, 10 => fragments, 20 => control, 2 => any_frame, 1 => noise, 1 => close
    ];
    proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_split_of_the_stream_decodes_the_same(
        bytes in stream(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let ends = cuts.iter().copied().chain([bytes.len()]);
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let pieces: Vec<&[u8]> = starts.zip(ends).map(|(from, to)| &bytes[from..to]).collect();
        let whole = read(&bytes);
        prop_assert_eq!(read_all(pieces), whole.as_slice());
        prop_assert_eq!(read_all(bytes.chunks(1)), whole);
    }

    #[test]
    fn unmasking_is_a_byte_by_byte_xor(
        bytes in proptest::collection::vec(any::<u8>(), 0..50),
        mask in any::<[u8; 4]>(),
    ) {
        let plain: Vec<u8> = bytes.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
        let mut masked = bytes;
        unmask(&mut masked, mask);
        prop_assert_eq!(masked, plain);
    }
}

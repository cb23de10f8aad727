//! What a node grants one client, one user and one message.

use std::time::Duration;

/// Every bound of a node, in one place. 0 switches a rate or a count off; a size of 0 or a time of less than 1 ms or more
/// than ten years is refused at the start of a node, but where 0 is said to mean something.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Longest message from a client and longest published message, in bytes; 64 KiB. Beyond it a
    /// WebSocket is closed with 1009, a POST gets 413, a publication `too_large`. An unfinished
    /// message costs as much memory.
    pub message_bytes: usize,
    /// Longest time from the first bytes of a client's message to its last; 60 s. Beyond it a WebSocket is closed with
    /// 1011, a POST gets 408. Until then its bytes are a sign of life, however slowly they come.
    pub message_deadline: Duration,
    /// Most bytes that wait for one client; 1 MiB. Beyond it the client is closed with 4008. Costs
    /// that much for a client that stopped reading, less what it shares with others.
    pub outbox_bytes: usize,
    /// Longest time in which a frame whose turn has come must have left; 10 s. Beyond it the client is closed with 4008.
    pub write_deadline: Duration,
    /// Longest time from a request to a connection that is taken in, authentication included; 10 s. Beyond it the client
    /// is told 1013. It also bounds each later question to the authenticator and the authorizer, which then is answered
    /// `unavailable`. How long the head of the request may take is up to the HTTP server; give it the same.
    pub handshake_deadline: Duration,
    /// Longest time for the bus to open a link, to take a subscription, and to answer a question about its history;
    /// 10 s. Beyond it the link counts as lost and a new one is opened; a question is asked again.
    pub bus_deadline: Duration,
    /// Longest time for the client to answer a close; 5 s. Beyond it the connection is cut.
    pub close_deadline: Duration,
    /// Most rooms of one connection; 128. Beyond it `too_many_rooms`. A membership costs about 100 bytes.
    pub rooms_per_connection: usize,
    /// Time between two heartbeats; 30 s. A client without a sign of life by the next one is cut.
    pub heartbeat: Duration,
    /// Messages per second that a client may send in the long run; 100. Beyond it `rate_limited`, at the fourth within 10 s 4029.
    /// Beside them as many frames may come that are no messages: pings, pongs, empty fragments.
    pub message_rate: u32,
    /// Messages that a client may send at once; 200. Counts only together with `message_rate`.
    pub message_burst: u32,
    /// New connections per second that the node takes in the long run; 2,000. Beyond it a new one is told
    /// when to come back (503 with `Retry-After`, on `/events` a `close` 1013), one after the other at this
    /// rate, so that a herd becomes a queue. Requests that come to nothing do not count. A drain expects as much of the
    /// other nodes.
    pub accept_rate: u32,
    /// New connections that the node takes at once; 10,000. Counts only together with `accept_rate`.
    pub accept_burst: u32,
    /// Requests for a connection that come to nothing (no handshake, bad credentials) of one address, or of one /64 of
    /// IPv6, per second in the long run; 1,000. Beyond it all its requests are refused, as beyond `accept_rate`.
    pub peer_rate: u32,
    /// Such requests of one address at once; 10,000. Counts only together with `peer_rate`.
    pub peer_burst: u32,
    /// Connections of one user over all nodes; 100. The newest is refused with 4009 or 429, and with 1013 while some of
    /// those counted may be gone with a node that is not heard from.
    pub connections_per_user: usize,
    /// How long a token is good beyond its `exp`; 5 s, or 0. Then the client is closed with 4001.
    pub token_leeway: Duration,
    /// How long a user whose connection is lost is still shown in a room; 5 s, or 0. One that reconnects within it was not
    /// away. A client that leaves, is taken out, or is told by its close code not to come back is gone at once.
    pub presence_linger: Duration,
    /// Time between two looks at the tops of all topics that are kept; 30 s, and 0 switches it off. A message that a
    /// link lost, with none after it, is found by then.
    pub history_check: Duration,
    /// How long a connection keeps its cursor while it hears nothing that has a newer one; 5 min. Then it is sent a message
    /// `cursor`, so that it never comes back with one that is older than what the bus remembers of silent topics: keep it
    /// well below an hour, which is what the memory bus remembers. Costs one short message per connection and time.
    pub cursor_age: Duration,
    /// Most bytes that wait for one shard; 8 MiB. Beyond it the bus is read no further until the shard
    /// caught up; members lose nothing.
    pub inbox_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 64 * 1024,
            message_deadline: Duration::from_secs(60),
            outbox_bytes: 1024 * 1024,
            write_deadline: Duration::from_secs(10),
            handshake_deadline: Duration::from_secs(10),
            bus_deadline: Duration::from_secs(10),
            close_deadline: Duration::from_secs(5),
            rooms_per_connection: 128,
            heartbeat: Duration::from_secs(30),
            message_rate: 100,
            message_burst: 200,
            accept_rate: 2000,
            accept_burst: 10_000,
            peer_rate: 1000,
            peer_burst: 10_000,
            connections_per_user: 100,
            token_leeway: Duration::from_secs(5),
            presence_linger: Duration::from_secs(5),
            history_check: Duration::from_secs(30),
            cursor_age: Duration::from_secs(300),
            inbox_bytes: 8 * 1024 * 1024,
        }
    }
}

impl Limits {
    /// Sets a field by its name: sizes in bytes, times in seconds (fractions allowed), counts as numbers.
    ///
    /// # Errors
    /// [`LimitsError`] when there is no such field or the value is not of its kind.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), LimitsError> {
        match name {
            "message_bytes" => self.message_bytes = size(name, value)?,
            "message_deadline" => self.message_deadline = seconds(name, value)?,
            "outbox_bytes" => self.outbox_bytes = size(name, value)?,
            "write_deadline" => self.write_deadline = seconds(name, value)?,
            "handshake_deadline" => self.handshake_deadline = seconds(name, value)?,
            "bus_deadline" => self.bus_deadline = seconds(name, value)?,
            "close_deadline" => self.close_deadline = seconds(name, value)?,
            "rooms_per_connection" => self.rooms_per_connection = number(name, value)?,
            "heartbeat" => self.heartbeat = seconds(name, value)?,
            "message_rate" => self.message_rate = number(name, value)?,
            "message_burst" => self.message_burst = number(name, value)?,
            "accept_rate" => self.accept_rate = number(name, value)?,
            "accept_burst" => self.accept_burst = number(name, value)?,
            "peer_rate" => self.peer_rate = number(name, value)?,
            "peer_burst" => self.peer_burst = number(name, value)?,
            "connections_per_user" => self.connections_per_user = number(name, value)?,
            "token_leeway" => self.token_leeway = seconds_or_zero(name, value)?,
            "presence_linger" => self.presence_linger = seconds_or_zero(name, value)?,
            "history_check" => self.history_check = seconds_or_zero(name, value)?,
            "cursor_age" => self.cursor_age = seconds(name, value)?,
            "inbox_bytes" => self.inbox_bytes = size(name, value)?,
            _ => return Err(LimitsError::Unknown(name.to_owned())),
        }
        Ok(())
    }

    /// Which of them cannot be, if any: fields may have been set by hand.
    pub(crate) fn check(&self) -> Result<(), String> {
        let sizes = [self.message_bytes, self.outbox_bytes, self.inbox_bytes];
        if sizes.contains(&0) {
            return Err("message_bytes, outbox_bytes and inbox_bytes must be above 0".to_owned());
        }
        let times = [
            ("write_deadline", self.write_deadline, SHORTEST),
            ("handshake_deadline", self.handshake_deadline, SHORTEST),
            ("bus_deadline", self.bus_deadline, SHORTEST),
            ("close_deadline", self.close_deadline, SHORTEST),
            ("heartbeat", self.heartbeat, SHORTEST),
            ("token_leeway", self.token_leeway, Duration::ZERO),
            ("presence_linger", self.presence_linger, Duration::ZERO),
            ("history_check", self.history_check, Duration::ZERO),
        ];
        let wrong = times.iter().find(|(_, time, least)| !(*least..=LONGEST).contains(time));
        wrong.map_or(Ok(()), |(name, time, least)| {
            Err(format!("the limit `{name}` is from {least:?} to ten years, not {time:?}"))
        })
    }
}

/// A limit that cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// There is no limit of this name.
    #[error("there is no limit `{0}`; the fields of `Limits` are the names")]
    Unknown(String),
    /// The value is not of the kind that the limit takes.
    #[error("the limit `{name}` takes {takes}, not `{value}`")]
    Value {
        /// The limit.
        name: String,
        /// What it takes.
        takes: &'static str,
        /// What was given.
        value: String,
    },
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, LimitsError> {
    value.parse().map_err(|_| wrong(name, "a whole number (0 switches it off)", value))
}

fn size(name: &str, value: &str) -> Result<usize, LimitsError> {
    match value.parse() {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(wrong(name, "a number of bytes above 0", value)),
    }
}

fn seconds(name: &str, value: &str) -> Result<Duration, LimitsError> {
    match seconds_or_zero(name, value) {
        Ok(time) if time >= SHORTEST => Ok(time),
        _ => Err(wrong(name, "a number of seconds from 0.001 on", value)),
    }
}

fn seconds_or_zero(name: &str, value: &str) -> Result<Duration, LimitsError> {
    let secs = value.parse().ok().filter(|s| (0.0..=LONGEST.as_secs_f64()).contains(s));
    secs.map(Duration::from_secs_f64).ok_or_else(|| wrong(name, "a number of seconds", value))
}

fn wrong(name: &str, takes: &'static str, value: &str) -> LimitsError {
    LimitsError::Value { name: name.to_owned(), takes, value: value.to_owned() }
}

const SHORTEST: Duration = Duration::from_millis(1);
/// Ten years: no limit means to be longer, and arithmetic with it cannot overflow.
pub(crate) const LONGEST: Duration = Duration::from_secs(315_360_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_can_be_set_by_its_name() {
        let mut limits = Limits::default();
        let fields = format!("{limits:?}");
        let names = fields.trim_start_matches("Limits { ").trim_end_matches(" }").split(", ");
        for name in names.map(|field| field.split_once(':').map_or("", |(name, _)| name)) {
            assert_eq!(limits.set(name, "7"), Ok(()), "{name}");
        }
        assert_eq!((limits.message_bytes, limits.heartbeat), (7, Duration::from_secs(7)));
    }

    #[test]
    fn wrong_names_and_values_are_told() {
        let mut limits = Limits::default();
        assert!(limits.set("mesage_bytes", "1").is_err());
        for (name, value) in [
            ("message_bytes", "0"),
            ("heartbeat", "0"),
            ("heartbeat", "inf"),
            ("message_rate", "-1"),
        ] {
            assert!(limits.set(name, value).is_err(), "{name}={value}");
        }
        assert_eq!(limits.set("message_rate", "0"), Ok(()));
        assert_eq!(limits.set("heartbeat", "0.25"), Ok(()));
        assert_eq!(limits.set("history_check", "0"), Ok(()));
        assert_eq!(limits.check(), Ok(()));
    }
}

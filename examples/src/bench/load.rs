//! A load generator for Tidings and its floor: many clients in one room, one of which publishes. It checks that every
//! client gets every message once and in order, and prints what a delivery costs the server.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::{
    error::Error,
    fs,
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use clap::Parser;
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use wire::{PING, PONG, TEXT, Wire, frame};

mod wire;

/// Connections that are being made at the same time.
const CONNECTING: usize = 64;
/// How long a phase waits for a next event before what has not come is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Loads a push server of this machine.
#[derive(Debug, Parser)]
struct Args {
    /// The port of 127.0.0.1 that the server listens on.
    #[arg(long)]
    port: u16,
    /// The process of the server.
    #[arg(long)]
    pid: u32,
    /// The secret that the token of the clients is signed with.
    #[arg(long, default_value = "s")]
    secret: String,
    /// Receiving clients; the publisher is one more.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Bytes of a message's data.
    #[arg(long, default_value_t = 128)]
    bytes: usize,
    /// Messages per second of the first phase.
    #[arg(long, default_value_t = 20)]
    rate: u32,
    /// Seconds of the first phase.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Messages under way in the second phase.
    #[arg(long, default_value_t = 8)]
    window: usize,
    /// Messages of the second phase.
    #[arg(long, default_value_t = 500)]
    count: usize,
    /// Only connect and measure memory.
    #[arg(long)]
    idle: bool,
}

#[derive(Debug, PartialEq, Clone, Copy)]
enum State {
    Upgrading,
    Joining,
    Joined,
}

#[derive(Debug)]
struct Client {
    wire: Wire,
    state: State,
    next: usize,
}

struct Load {
    args: Args,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    clients: Vec<Client>,
    joined: usize,
    gone: usize,
    /// How many clients got each message; its place is its number.
    got: Vec<usize>,
    out_of_order: usize,
}

impl Load {
    /// Waits for events and answers them; false when there were none.
    fn turn(&mut self, wait: Duration) -> Result<bool, Box<dyn Error>> {
        self.poll.poll(&mut self.events, Some(wait))?;
        for event in &self.events {
            let client = &mut self.clients[event.token().0];
            client.wire.flush();
            if event.is_readable() && !client.wire.fill(&mut self.buffer) {
                self.gone += 1;
            }
            if client.state == State::Upgrading {
                let Some(head) = client.wire.head() else { continue };
                if !head.starts_with("HTTP/1.1 101") {
                    return Err(format!("refused: {head}").into());
                }
                client.state = State::Joining;
                let join = br#"{"type":"join:room","payload":{"roomId":"r"}}"#;
                client.wire.send(&frame(TEXT, join, true));
            }
            while let Some((opcode, payload)) = client.wire.take() {
                if opcode == PING {
                    let pong = frame(PONG, payload, true);
                    client.wire.send(&pong);
                    continue;
                }
                let text = std::str::from_utf8(payload).unwrap_or_default();
                if text.starts_with(r#"{"type":"room:joined""#) {
                    client.state = State::Joined;
                    self.joined += 1;
                } else if let Some((_, rest)) = text.split_once("\"#") {
                    let number: usize = rest.get(..10).unwrap_or_default().parse()?;
                    self.out_of_order += usize::from(number != client.next);
                    client.next = number + 1;
                    *self.got.get_mut(number).ok_or("a message nobody sent")? += 1;
                }
            }
        }
        Ok(!self.events.is_empty())
    }

    /// Connects and joins all clients.
    fn connect(&mut self) -> Result<(), Box<dyn Error>> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.args.port));
        let claims = r#"{"sub":"bench","exp":4102444800}"#;
        let token = tidings_auth_jwt::sign_hs256(self.args.secret.as_bytes(), claims);
        let head = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        let all = self.args.clients + 1;
        while self.joined < all {
            while self.clients.len() < all && self.clients.len() - self.joined < CONNECTING {
                // Connecting blocks, so that the request can be written at once.
                let stream = std::net::TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let mut stream = TcpStream::from_std(stream);
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut stream, Token(self.clients.len()), interest)?;
                let mut wire = Wire::new(stream);
                wire.send(head.as_bytes());
                self.clients.push(Client { wire, state: State::Upgrading, next: 0 });
            }
            if !self.turn(PATIENCE)? {
                return Err(format!("only {} of {all} joined", self.joined).into());
            }
        }
        Ok(())
    }

    /// The publisher says the next message.
    fn publish(&mut self) {
        let number = self.got.len();
        let data = format!("#{number:010}{}", "x".repeat(self.args.bytes.saturating_sub(11)));
        let text =
            format!(r#"{{"type":"room:message","payload":{{"roomId":"r","data":"{data}"}}}}"#);
        self.got.push(0);
        if let Some(publisher) = self.clients.last_mut() {
            publisher.wire.send(&frame(TEXT, text.as_bytes(), true));
        }
    }

    /// Publishes `count` messages, each when `due` says so of those said and those done, and prints what it cost.
    fn phase(
        &mut self,
        name: &str,
        count: usize,
        due: impl Fn(usize, usize, Duration) -> bool,
    ) -> Result<(), Box<dyn Error>> {
        let (first, cpu, start) = (self.got.len(), cpu_nanos(self.args.pid)?, Instant::now());
        self.out_of_order = 0;
        let (mut done, mut heard) = (first, Instant::now());
        while done < first + count && heard.elapsed() < PATIENCE {
            while self.got.len() < first + count
                && due(self.got.len() - first, done - first, start.elapsed())
            {
                self.publish();
            }
            if self.turn(Duration::from_millis(2))? {
                heard = Instant::now();
            }
            while self.got.get(done).is_some_and(|&got| got >= self.clients.len()) {
                done += 1;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let cost = cpu_nanos(self.args.pid)?.saturating_sub(cpu) as f64 / 1000.0;
        let deliveries: usize = self.got[first..].iter().sum();
        println!(
            "{name} deliveries={deliveries} lost={} out_of_order={} gone={} seconds={seconds:.2} \
             cpu_us_per_delivery={:.3}",
            (count * self.clients.len()).saturating_sub(deliveries),
            self.out_of_order,
            self.gone,
            cost / deliveries.max(1) as f64,
        );
        Ok(())
    }
}

/// The processor time of all threads of a process: exact from `schedstat`, or else in ticks of 10 ms.
fn cpu_nanos(pid: u32) -> Result<u64, Box<dyn Error>> {
    let mut exact = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        exact += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    if exact > 0 {
        return Ok(exact);
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
    Ok(ticks * 10_000_000)
}

/// The resident memory of a process, in KiB.
fn rss_kib(pid: u32) -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let (rate, seconds, window, count) = (args.rate, args.seconds, args.window, args.count);
    let (pid, idle, before) = (args.pid, args.idle, rss_kib(args.pid)?);
    let mut load = Load {
        args,
        poll: Poll::new()?,
        events: Events::with_capacity(1024),
        buffer: vec![0; 64 * 1024],
        clients: Vec::new(),
        joined: 0,
        gone: 0,
        got: Vec::new(),
        out_of_order: 0,
    };
    load.connect()?;
    sleep(Duration::from_secs(1));
    let (grown, connections) = (rss_kib(pid)?.saturating_sub(before), load.clients.len());
    let bytes = grown * 1024 / connections as u64;
    println!("idle connections={connections} rss_bytes_per_connection={bytes}");
    if !idle {
        let all = usize::try_from(rate * seconds)?;
        let pace = f64::from(rate);
        load.phase("rate", all, |said, _, at| said as f64 <= at.as_secs_f64() * pace)?;
        load.phase("window", count, |said, done, _| said - done < window)?;
    }
    Ok(())
}

//! One Redis.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::port::Port;
use crate::process::Process;
use crate::reply::Connection;
use crate::{Certificates, Reply, in_time};

/// How a Redis is started. By default it keeps nothing on disk and asks no password.
#[derive(Debug, Clone, Default)]
pub struct Options {
    settings: BTreeMap<String, String>,
    password: Option<String>,
    tls: bool,
}

impl Options {
    /// A line of its configuration, spelled as in its file: `set("maxmemory", "4mb")`.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Keeps every write on disk, so that a killed server has it when it is restarted.
    #[must_use]
    pub fn persistent(self) -> Self {
        self.set("appendonly", "yes").set("appendfsync", "always")
    }

    /// Asks this password of the default user.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Listens with TLS too, on [`Redis::tls_url`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }
}

/// A private Redis on 127.0.0.1. Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    options: Options,
    port: Port,
    tls: Option<(Port, Certificates)>,
    sentinel: bool,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub async fn start(options: Options) -> Self {
        Self::start_with(options, None).await
    }

    /// Starts a server, or a Sentinel with these lines of configuration.
    pub(crate) async fn start_with(options: Options, sentinel: Option<String>) -> Self {
        for _ in 0..STARTS {
            let process = Process::new();
            let tls =
                options.tls.then(|| (Port::reserve(), Certificates::create(process.folder())));
            let (options, port, is_sentinel) =
                (options.clone(), Port::reserve(), sentinel.is_some());
            let mut redis = Self { process, options, port, tls, sentinel: is_sentinel };
            redis.configure(&(redis.settings() + sentinel.as_deref().unwrap_or_default()));
            redis.launch();
            match redis.answers().await {
                Ok(()) => return redis,
                // Something that knows nothing of our marks took the port in between.
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("redis-server ended:\n{log}"),
            }
        }
        panic!("redis-server found its port taken {STARTS} times");
    }

    /// Where it listens, without TLS.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its URL, with its password.
    pub fn url(&self) -> String {
        self.url_of("redis", &self.port)
    }

    /// Its URL with TLS, and the certificates with which it can be trusted.
    pub fn tls_url(&self) -> (String, &Certificates) {
        let (port, certificates) = self.tls.as_ref().expect("it was started with `Options::tls`");
        (self.url_of("rediss", port), certificates)
    }

    fn url_of(&self, scheme: &str, port: &Port) -> String {
        let password = self.options.password.as_ref();
        let credentials = password.map_or(String::new(), |password| format!(":{password}@"));
        format!("{scheme}://{credentials}{}", port.address())
    }

    /// The answer to a command, on a connection of its own with the rights of the default user.
    pub async fn cli(&self, command: &[&str]) -> Reply {
        let name = command.join(" ");
        let answer = in_time(&name, self.try_cli(command)).await;
        answer.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Like [`cli`](Self::cli), for a server that may be away. It waits as long as the server is silent.
    ///
    /// # Errors
    /// What the connection says.
    pub async fn try_cli(&self, command: &[&str]) -> io::Result<Reply> {
        let mut connection = Connection::open(self.address()).await?;
        if let Some(password) = &self.options.password {
            connection.ask(&["AUTH", password]).await?;
        }
        connection.ask(command).await
    }

    /// A section of `INFO`, by field.
    pub async fn info(&self, section: &str) -> BTreeMap<String, String> {
        let text = self.cli(&["INFO", section]).await.text();
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
    }

    /// Changes a setting of the running server; it is not kept over a restart.
    pub async fn config_set(&self, name: &str, value: &str) {
        self.cli(&["CONFIG", "SET", name, value]).await.ok();
    }

    /// Changes the password of the default user, now and for restarts.
    pub async fn set_password(&mut self, password: &str) {
        self.config_set("requirepass", password).await;
        self.options.password = Some(password.to_owned());
        self.set("requirepass", password);
    }

    /// Changes a setting for the next launch.
    pub fn set(&mut self, name: &str, value: &str) {
        self.configure(&line(name, value));
    }

    /// Appends to its configuration: of two lines the later one holds, and what a Sentinel had written stays.
    fn configure(&self, lines: &str) {
        let path = self.process.folder().join(CONFIG);
        let file = File::options().create(true).append(true).open(path);
        let written = file.and_then(|mut file| file.write_all(lines.as_bytes()));
        written.expect("the configuration can be written");
    }

    /// Ends it as `kill -9` does.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Asks it to end in order and waits for that.
    pub async fn terminate(&mut self) {
        self.process.signal("TERM");
        in_time("the end of the server", async {
            while self.process.is_running() {
                tokio::time::sleep(PAUSE).await;
            }
        })
        .await;
        self.process.kill9();
    }

    /// Starts it again, on the same port and in the same folder, and waits until it answers.
    pub async fn restart(&mut self) {
        self.launch();
        if let Err(log) = self.answers().await {
            panic!("redis-server ended:\n{log}");
        }
    }

    /// Starts it again without waiting.
    pub fn launch(&mut self) {
        let sentinel = self.sentinel.then_some("--sentinel");
        self.process.launch([CONFIG].into_iter().chain(sentinel));
    }

    /// Makes it hang: connections stay, nothing is answered.
    pub fn sigstop(&self) {
        self.process.signal("STOP");
    }

    /// Wakes it from [`sigstop`](Self::sigstop).
    pub fn sigcont(&self) {
        self.process.signal("CONT");
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    fn settings(&self) -> String {
        let mut lines = line("port", &self.port.number().to_string());
        lines +=
            "bind 127.0.0.1\nsave \"\"\nenable-debug-command yes\nrepl-diskless-sync-delay 0\n";
        if let Some(password) = &self.options.password {
            lines += &line("requirepass", password);
        }
        if let Some((port, _)) = &self.tls {
            lines += &line("tls-port", &port.number().to_string());
            lines += "tls-cert-file server.crt\ntls-key-file server.key\n";
            lines += "tls-ca-cert-file ca.crt\ntls-auth-clients no\n";
        }
        lines + &self.options.settings.iter().map(|(n, v)| line(n, v)).collect::<String>()
    }

    /// Waits until it answers `PING`. The log, when it ended instead.
    async fn answers(&mut self) -> Result<(), String> {
        in_time("redis-server to answer", async {
            loop {
                if !self.process.is_running() {
                    return Err(self.process.log());
                }
                match self.try_cli(&["PING"]).await {
                    Ok(Reply::Text(_)) if self.process.is_running() => return Ok(()),
                    _ => tokio::time::sleep(PAUSE).await,
                }
            }
        })
        .await
    }
}

fn line(name: &str, value: &str) -> String {
    format!("{name} {value}\n")
}

/// The name of its configuration file.
const CONFIG: &str = "redis.conf";
/// Between two looks at the server.
const PAUSE: Duration = Duration::from_millis(10);
/// Attempts with another port each.
const STARTS: u32 = 10;

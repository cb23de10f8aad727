//! The proxies of `examples/proxies`, started from their own configurations with other addresses in them.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// `nginx.conf`.
    Nginx,
    /// `haproxy.cfg`.
    Haproxy,
    /// `Caddyfile`.
    Caddy,
}

/// A proxy as a process, in a folder of its own; ended when dropped.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    folder: PathBuf,
    /// Where clients connect.
    pub address: SocketAddr,
}

impl Proxy {
    /// Starts it in front of two nodes. `changes` are made to its configuration, and each must change something.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    pub fn start(kind: Kind, nodes: [SocketAddr; 2], changes: &[(&str, &str)]) -> Self {
        let address = free_address();
        let port = address.port();
        let folder =
            std::env::temp_dir().join(format!("tidings-proxy-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let here = folder.to_str().expect("UTF-8");
        let (file, own): (_, Vec<(&str, String)>) = match kind {
            Kind::Nginx => (
                "nginx.conf",
                vec![
                    ("listen 8000", format!("listen {address}")),
                    ("worker_processes auto", "worker_processes 2".to_owned()),
                    (
                        "worker_rlimit_nofile 200000;",
                        format!("pid {here}/pid; error_log {here}/log;"),
                    ),
                    ("worker_connections 100000", "worker_connections 8000".to_owned()),
                    ("error_log stderr crit;", format!("error_log {here}/log crit;")),
                    ("http {", nginx_folders(here)),
                ],
            ),
            Kind::Haproxy => (
                "haproxy.cfg",
                vec![
                    ("bind :8000", format!("bind {address}")),
                    ("maxconn 100000", "maxconn 8000".to_owned()),
                ],
            ),
            Kind::Caddy => (
                "Caddyfile",
                vec![
                    ("(node) {", "{\nadmin off\n}\n(node) {".to_owned()),
                    (":8000 {", format!("http://:{port} {{\nbind 127.0.0.1")),
                ],
            ),
        };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxies").join(file);
        let mut config = fs::read_to_string(&source).expect("the configuration");
        let nodes =
            [("127.0.0.1:8080", nodes[0].to_string()), ("127.0.0.1:8082", nodes[1].to_string())];
        let changes = changes.iter().map(|(from, to)| (*from, (*to).to_owned()));
        for (from, to) in own.into_iter().chain(nodes).chain(changes) {
            assert!(config.contains(from), "`{from}` is not in {file}");
            config = config.replace(from, &to);
        }
        let rendered = folder.join(file);
        fs::write(&rendered, config).expect("a file");
        let mut child = command(kind, &rendered).spawn().expect("the proxy starts");
        let mut tries = 0;
        while TcpStream::connect(address).is_err() {
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none() && tries < TRIES, "no proxy: {ended:?}, see {here}");
            tries += 1;
            std::thread::sleep(PAUSE);
        }
        Self { child, folder, address }
    }
}

impl Proxy {
    /// What nginx has written to its error log.
    pub fn error_log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl From<&Proxy> for SocketAddr {
    fn from(proxy: &Proxy) -> Self {
        proxy.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // A signal that it can hear: nginx ends its workers.
        let _ = Command::new("sh").args(["-c", &format!("kill {}", self.child.id())]).status();
        for _ in 0..TRIES {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// An address that nobody listens on, below the ports that systems give to connections: for what is started, ended
/// and started there again.
///
/// # Panics
/// When the system gives no random numbers.
pub fn free_address() -> SocketAddr {
    loop {
        let mut random = [0; 2];
        getrandom::fill(&mut random).expect("random bytes");
        let port = 10_000 + u16::from_le_bytes(random) % 20_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().expect("an address");
        }
    }
}

fn command(kind: Kind, config: &Path) -> Command {
    let folder = config.parent().expect("it is in a folder");
    let mut command = match kind {
        Kind::Nginx => {
            let mut command = Command::new(program("nginx"));
            command.args(["-g", "daemon off;", "-e", "stderr", "-c"]).arg(config);
            command
        }
        Kind::Haproxy => {
            let mut command = Command::new(program("haproxy"));
            command.args(["-db", "-f"]).arg(config);
            command
        }
        Kind::Caddy => {
            let mut command = Command::new(program("caddy"));
            command.args(["run", "--adapter", "caddyfile", "--config"]).arg(config);
            command.env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
            command
        }
    };
    let log = fs::File::create(folder.join("output")).expect("a file");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}

/// Where a program is; `./test` installs those that are missing.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin");
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), tools]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: install it, or run ./test, which does"))
}

fn nginx_folders(here: &str) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let lines = kinds.map(|kind| format!("{kind}_temp_path {here}/{kind};"));
    format!("http {{ {}", lines.join(" "))
}

/// How often and how long a proxy's start and end are waited for.
const TRIES: usize = 1000;
const PAUSE: Duration = Duration::from_millis(20);

//! Raw commands to a Redis, each on a connection of its own, so that no client library stands between a test and the
//! server.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// What a Redis answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A status or a string.
    Text(String),
    /// An error: its code and text.
    Error(String),
    /// A number.
    Int(i64),
    /// Nothing.
    Nil,
    /// Several answers.
    List(Vec<Reply>),
}

impl Reply {
    /// Insists that it is no error.
    pub fn ok(self) -> Self {
        if let Self::Error(error) = &self {
            panic!("the Redis refused: {error}");
        }
        self
    }

    /// The text of a status or a string.
    pub fn text(self) -> String {
        match self.ok() {
            Self::Text(text) => text,
            other => panic!("not a text: {other:?}"),
        }
    }

    /// The number.
    pub fn int(self) -> i64 {
        match self.ok() {
            Self::Int(number) => number,
            other => panic!("not a number: {other:?}"),
        }
    }

    /// The parts.
    pub fn list(self) -> Vec<Self> {
        match self.ok() {
            Self::List(list) => list,
            other => panic!("not a list: {other:?}"),
        }
    }

    /// Whether there was nothing.
    pub fn is_nil(&self) -> bool {
        *self == Self::Nil
    }
}

/// One connection.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Error> {
        Ok(Self(BufReader::new(TcpStream::connect(address).await?)))
    }

    pub(crate) async fn ask(&mut self, command: &[&str]) -> Result<Reply, Error> {
        let mut request = format!("*{}\r\n", command.len());
        for part in command {
            request += &format!("${}\r\n{part}\r\n", part.len());
        }
        self.0.get_mut().write_all(request.as_bytes()).await?;
        self.read().await
    }

    async fn read(&mut self) -> Result<Reply, Error> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        let line = line.trim_end();
        let kind = line.chars().next().ok_or(ErrorKind::UnexpectedEof)?;
        let rest = &line[1..];
        let number = || rest.parse::<i64>().map_err(|_| Error::from(ErrorKind::InvalidData));
        Ok(match kind {
            '+' => Reply::Text(rest.to_owned()),
            '-' => Reply::Error(rest.to_owned()),
            ':' => Reply::Int(number()?),
            '$' | '*' if rest == "-1" => Reply::Nil,
            '$' => {
                let mut text = vec![0; number()? as usize + 2];
                self.0.read_exact(&mut text).await?;
                text.truncate(text.len() - 2);
                Reply::Text(String::from_utf8_lossy(&text).into_owned())
            }
            '*' => {
                let mut list = Vec::new();
                for _ in 0..number()? {
                    list.push(Box::pin(self.read()).await?);
                }
                Reply::List(list)
            }
            _ => return Err(ErrorKind::InvalidData.into()),
        })
    }
}

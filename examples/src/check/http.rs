//! A minimal HTTP/1.1 client that keeps its connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connection::invalid;

/// One kept connection, made again when it broke or when another server is asked.
#[derive(Debug, Default)]
pub struct Http(Option<(SocketAddr, BufReader<TcpStream>)>);

impl Http {
    /// Asks and waits at most `patience` for the whole answer: its status and its body.
    ///
    /// # Errors
    /// When there was no whole answer; the request may or may not have been carried out.
    pub async fn request(
        &mut self,
        address: SocketAddr,
        method_and_path: &str,
        headers: &str,
        body: &str,
        patience: Duration,
    ) -> io::Result<(u16, String)> {
        let kept = self.0.take().filter(|(to, _)| *to == address).map(|(_, kept)| kept);
        let asked = async {
            let mut socket = match kept {
                Some(kept) => kept,
                None => BufReader::new(TcpStream::connect(address).await?),
            };
            let length = body.len();
            let request = format!(
                "{method_and_path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
            );
            socket.get_mut().set_nodelay(true)?;
            socket.write_all(request.as_bytes()).await?;
            let answer = read_answer(&mut socket).await?;
            Ok::<_, io::Error>((socket, answer))
        };
        let (socket, answer) = timeout(patience, asked).await??;
        self.0 = Some((address, socket));
        Ok(answer)
    }
}

async fn read_answer(socket: &mut BufReader<TcpStream>) -> io::Result<(u16, String)> {
    let (mut status, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if status.is_none() {
            status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        } else if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| invalid("no length"))?;
        } else if line.starts_with("transfer-encoding:") {
            return Err(invalid("an answer in chunks is not read here"));
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    let body = String::from_utf8(body).map_err(|_| invalid("not text"))?;
    Ok((status.ok_or_else(|| invalid("no status"))?, body))
}

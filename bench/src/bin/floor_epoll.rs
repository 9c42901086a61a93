//! The floor: the least that answering a redirect can cost with one thread, `epoll`, `read` and `write`.
//!
//! It looks at no path and no header, it only counts where requests end. Whatever another server spends above
//! this is its own work; below it lies the kernel's.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// As long as an answer of terse for an address of ordinary length.
const ANSWER: &[u8] = b"HTTP/1.1 302 Found\r\n\
    location: https://www.example.com/a/page/of/ordinary/length?with=a&query=string\r\n\
    cache-control: private, no-store\r\n\
    content-length: 0\r\n\
    date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";
const HEAD_END: &[u8] = b"\r\n\r\n";
const READ_LEN_MAX: usize = 16 * 1024;
const LISTENER: u64 = u64::MAX;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    println!("listening on http://{}", listener.local_addr()?);

    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0; READ_LEN_MAX];
    loop {
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in events.drain(..) {
            let token = event.data.u64();
            if token == LISTENER {
                accept_all(&listener, &epoll, &mut connections)?;
                continue;
            }
            let slot = &mut connections[token as usize];
            let open = slot.as_mut().is_some_and(|connection| connection.serve(&mut buffer).unwrap_or(false));
            if !open {
                // Dropping the stream closes it, which also takes it out of the epoll set.
                *slot = None;
            }
        }
    }
}

fn accept_all(
    listener: &TcpListener,
    epoll: &OwnedFd,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let slot = connections.iter().position(Option::is_none).unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        epoll::add(epoll, &stream, EventData::new_u64(slot as u64), EventFlags::IN)?;
        connections[slot] = Some(Connection { stream, matched: 0 });
    }
}

struct Connection {
    stream: TcpStream,
    /// How many bytes of `HEAD_END` the input so far ends with: a request may arrive in pieces.
    matched: usize,
}

impl Connection {
    /// Answers every request whose end has arrived; false when the peer has closed.
    fn serve(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let len = match self.stream.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        match self.count_requests(&buffer[..len]) {
            0 => {}
            // A full socket buffer closes the connection: the client here reads what it asked for.
            1 => self.stream.write_all(ANSWER)?,
            pipelined => self.stream.write_all(&ANSWER.repeat(pipelined))?,
        }
        Ok(true)
    }

    fn count_requests(&mut self, input: &[u8]) -> usize {
        let mut count = 0;
        for &byte in input {
            self.matched = match byte {
                b if b == HEAD_END[self.matched] => self.matched + 1,
                b'\r' => 1,
                _ => 0,
            };
            if self.matched == HEAD_END.len() {
                count += 1;
                self.matched = 0;
            }
        }
        count
    }
}

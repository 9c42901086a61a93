//! The floor: the least that answering a redirect can cost with one thread, `epoll`, `read` and `write`.
//!
//! It looks at no path and no header, it only counts where requests end. Whatever another server spends above
//! this is its own work; below it lies the kernel's.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use terse_bench::{ANSWER, HeadEnds};

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
        connections[slot] = Some(Connection { stream, ends: HeadEnds::default() });
    }
}

struct Connection {
    stream: TcpStream,
    ends: HeadEnds,
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
        match self.ends.count(&buffer[..len]) {
            0 => {}
            // A full socket buffer closes the connection: the client here reads what it asked for.
            1 => self.stream.write_all(ANSWER)?,
            pipelined => self.stream.write_all(&ANSWER.repeat(pipelined))?,
        }
        Ok(true)
    }
}

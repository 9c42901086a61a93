//! What the loop knows of one connection.

use super::Asked;
use crate::redirect::HEAD_LEN_MAX;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Bytes of answers that a connection may have unsent. Past them nothing of it is read or answered.
const UNSENT_LEN_MAX: usize = 64 << 10;

/// One connection. While its client is silent it holds no buffer.
#[derive(Debug)]
pub struct Connection<P> {
    pub socket: OwnedFd,
    pub peer: SocketAddr,
    pub place: P,
    /// What came and is not answered: a part of a head, or what waits for its turn.
    pub input: Vec<u8>,
    /// Answers that wait behind the send that is under way.
    pub output: Vec<u8>,
    /// Length of that send, which has the bytes, and how much of it the peer has taken.
    pub sending: Option<Sending>,
    /// The request whose answer is waited for, elsewhere.
    pub waiting: Option<Box<Asked>>,
    /// The tick after which the connection is given up.
    pub deadline: u32,
    pub fate: Fate,
    /// A receive is under way.
    pub is_receiving: bool,
    /// It has been asked to end.
    pub is_pausing: bool,
    /// The client will send no more.
    pub has_ended: bool,
    /// `input` may hold whole requests, which were not looked at because of unsent answers or a wait.
    pub is_behind: bool,
}

/// A send that is under way.
#[derive(Clone, Copy, Debug)]
pub struct Sending {
    pub len: usize,
    pub sent: usize,
}

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is read and answered.
    Open,
    /// When all is sent it is closed.
    Closing,
    /// When all is sent it is handed over.
    HandingOver,
    /// It is closed as soon as the kernel has let go of it.
    Broken,
}

impl<P> Connection<P> {
    pub fn new(socket: OwnedFd, peer: SocketAddr, place: P, deadline: u32) -> Self {
        Connection {
            socket,
            peer,
            place,
            input: Vec::new(),
            output: Vec::new(),
            sending: None,
            waiting: None,
            deadline,
            fate: Fate::Open,
            is_receiving: false,
            is_pausing: false,
            has_ended: false,
            is_behind: false,
        }
    }

    /// Whether the next request may be answered.
    pub fn may_answer(&self) -> bool {
        self.fate == Fate::Open && self.waiting.is_none() && self.unsent_len() < UNSENT_LEN_MAX
    }

    /// Whether more bytes are wanted.
    pub fn wants_bytes(&self) -> bool {
        self.fate == Fate::Open
            && !self.has_ended
            && self.unsent_len() < UNSENT_LEN_MAX
            && self.input.len() < HEAD_LEN_MAX
    }

    /// Whether all that was answered is sent.
    pub fn is_sent(&self) -> bool {
        self.sending.is_none() && self.output.is_empty()
    }

    /// Whether the kernel holds nothing of it but the socket.
    pub fn is_released(&self) -> bool {
        !self.is_receiving && self.sending.is_none()
    }

    fn unsent_len(&self) -> usize {
        self.output.len() + self.sending.map_or(0, |sending| sending.len - sending.sent)
    }
}

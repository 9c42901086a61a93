//! What the floor programs have in common: one answer, and where a request ends.

/// As long as an answer of terse for an address of ordinary length.
pub const ANSWER: &[u8] = b"HTTP/1.1 302 Found\r\n\
    location: https://www.example.com/a/page/of/ordinary/length?with=a&query=string\r\n\
    cache-control: private, no-store\r\n\
    content-length: 0\r\n\
    date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";

const HEAD_END: &[u8] = b"\r\n\r\n";

/// Finds the ends of requests in the input of a connection, which may arrive in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadEnds {
    /// How many bytes of `HEAD_END` the input so far ends with.
    matched: usize,
}

impl HeadEnds {
    /// How many requests end in `input`, which follows what was counted before.
    pub fn count(&mut self, input: &[u8]) -> usize {
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

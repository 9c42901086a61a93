//! Events as a JSON object on each line.

use super::{Encoder, Event};
use std::io;

/// A file of lines.
#[derive(Debug, Default)]
pub struct Ndjson(Vec<u8>);

impl Encoder for Ndjson {
    fn add(&mut self, event: &Event<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, event)?;
        self.0.push(b'\n');
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn ready(&self) -> usize {
        self.0.len()
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{event, file};
    use super::*;

    #[test]
    fn a_line_holds_every_field_of_the_schema() {
        let bytes = file(Box::new(Ndjson::default()), &[event(), Event { tags: Vec::new(), ..event() }]);
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected = serde_json::json!({
            "v": 1, "id": "000000000000002a-0-1-40", "at": "2027-01-15T08:00:00.000Z", "link": "f3Kq9Zx",
            "domain": "go.example.com", "kind": "human", "country": "CH", "device": null, "browser": "Firefox",
            "os": null, "language": "de-ch", "referrer": "https://news.example.org/a,b",
            "referrer_host": "news.example.org", "user_agent": "Mozilla/5.0 (\"quoted\")",
            "visitor": "0a1b2c3d4e5f6071", "is_head": false, "purpose": "visit", "tags": ["news", "a,b"],
        });
        assert_eq!(lines[0], expected);
        assert_eq!((lines.len(), &lines[1]["tags"]), (2, &serde_json::json!([])));
    }
}

//! Other shapes of the same API, for clients that people already have.

pub mod shorten;

use serde::Serialize;
use serde_json::Value;

/// How the keys of an answer are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `short_url`.
    Snake,
    /// `shortUrl`, for whoever asked so.
    Camel,
}

impl Style {
    /// An answer as JSON text.
    pub fn render(self, answer: &impl Serialize) -> String {
        match self {
            Style::Snake => serde_json::to_string(answer),
            Style::Camel => {
                serde_json::to_value(answer).and_then(|value| serde_json::to_string(&to_camel(value)))
            }
        }
        .expect("answers are JSON")
    }
}

fn to_camel(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (camel(&key), to_camel(value))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(to_camel).collect()),
        value => value,
    }
}

fn camel(key: &str) -> String {
    let mut words = key.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut camel, word| {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
        camel
    })
}

/// `customAlias` as `custom_alias`.
pub fn snake(key: &str) -> String {
    let mut snake = String::with_capacity(key.len() + 4);
    for letter in key.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_change_their_case() {
        for (snaked, cameled) in [("short_url", "shortUrl"), ("tags", "tags"), ("a_b_c", "aBC")] {
            assert_eq!(camel(snaked), cameled);
            assert_eq!(snake(cameled), snaked);
        }
        let answer = serde_json::json!({"short_url": "x", "tags": [{"a_b": 1}]});
        assert_eq!(Style::Camel.render(&answer), r#"{"shortUrl":"x","tags":[{"aB":1}]}"#);
    }
}

//! The HTML that people see: small pages around a link, and the API reference ([`docs`]).
//!
//! Each page is a struct that holds what it shows, and a pure function that turns it into text. Handlers choose status
//! and headers. The pages keep to a Content-Security-Policy that allows nothing inline; style and script are in
//! `assets/`, under `/-/assets/`.

mod reference;

use askama::Template;

pub use reference::docs;

/// The start page: one field that shortens, and what came of it.
#[derive(Template)]
#[template(path = "home.html")]
pub struct Home<'a> {
    /// Host of the short links, such as `sho.rt`.
    pub host: &'a str,
    /// Whether a visitor without an API key may create links here.
    pub can_create: bool,
    /// What the visitor typed, kept after an error.
    pub long_url: &'a str,
    /// The link that was just made.
    pub created: Option<CreatedLink<'a>>,
    /// Why no link was made.
    pub error: Option<&'a str>,
}

/// A link that was just made, as its maker sees it. Not `Debug`, so that the token reaches no log.
#[derive(Clone, Copy)]
pub struct CreatedLink<'a> {
    /// The short link, with its scheme.
    pub short_url: &'a str,
    /// Where it leads.
    pub long_url: &'a str,
    /// When it stops working, as text for people.
    pub expires_at: Option<&'a str>,
    /// The secret that lets its maker delete it. It is shown this once, so the answer must not be stored by a cache.
    pub manage_token: Option<&'a str>,
}

impl CreatedLink<'_> {
    /// Scheme and rest, because the page sets them apart.
    fn short_url_parts(&self) -> (&str, &str) {
        let rest = self.short_url.find("://").map_or(0, |at| at + "://".len());
        self.short_url.split_at(rest)
    }

    /// Characters of the long and the short address, where that is something to be glad of.
    fn lengths(&self) -> Option<(usize, usize)> {
        let lengths = (self.long_url.chars().count(), self.short_url.chars().count());
        (lengths.0 > lengths.1).then_some(lengths)
    }
}

/// What a person with a browser sees instead of a redirect that can't be given.
#[derive(Debug, Template)]
#[template(path = "error.html")]
pub struct ErrorPage<'a> {
    /// The HTTP status.
    pub status: u16,
    /// What is the matter, in a few words.
    pub title: &'a str,
    /// What it means and what to do.
    pub message: &'a str,
    /// Id of the request, for a report. May be empty.
    pub request_id: &'a str,
}

/// Asks for the password of a protected link.
#[derive(Debug, Template)]
#[template(path = "password.html")]
pub struct PasswordPage<'a> {
    /// Path that takes the form.
    pub action: &'a str,
    /// Why the last try did not open the link.
    pub error: Option<&'a str>,
}

/// What link previews and prefetches get in place of a redirect: it names no target.
#[derive(Debug, Template)]
#[template(path = "neutral.html")]
pub struct NeutralPage<'a> {
    /// Host of the short link.
    pub host: &'a str,
}

/// Renders the start page.
pub fn home(page: &Home<'_>) -> String {
    text_of(page)
}

/// Renders an error for a browser.
pub fn error(page: &ErrorPage<'_>) -> String {
    text_of(page)
}

/// Renders the password form.
pub fn password(page: &PasswordPage<'_>) -> String {
    text_of(page)
}

/// Renders the page that stands in for a link towards previews.
pub fn neutral(page: &NeutralPage<'_>) -> String {
    text_of(page)
}

fn text_of(page: &impl Template) -> String {
    page.render().expect("a template without fallible filters renders into a String")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const HOSTILE: &str = r#"<script>alert("1")</script>' onload='x"#;

    fn check_escaped(page: &str) {
        assert!(page.starts_with("<!doctype html>"));
        assert!(page.contains("alert(&#34;1&#34;)"), "the text itself is shown: {page}");
        assert!(!page.contains("<script>"), "{page}");
        assert!(!page.contains("' onload="), "{page}");
        assert!(!page.contains("style="), "the content security policy refuses inline style: {page}");
    }

    fn created() -> CreatedLink<'static> {
        CreatedLink {
            short_url: "https://sho.rt/Ab3xY7z",
            long_url: "https://example.com/a/very/long/path",
            expires_at: None,
            manage_token: None,
        }
    }

    fn start() -> Home<'static> {
        Home { host: "sho.rt", can_create: true, long_url: "", created: None, error: None }
    }

    #[test]
    fn hostile_input_is_escaped() {
        check_escaped(&home(&Home { long_url: HOSTILE, error: Some(HOSTILE), ..start() }));
        check_escaped(&home(&Home { host: HOSTILE, can_create: false, ..start() }));
        let link = CreatedLink {
            long_url: HOSTILE,
            expires_at: Some(HOSTILE),
            manage_token: Some(HOSTILE),
            ..created()
        };
        check_escaped(&home(&Home { created: Some(link), ..start() }));
        check_escaped(&error(&ErrorPage {
            status: 404,
            title: HOSTILE,
            message: HOSTILE,
            request_id: HOSTILE,
        }));
        check_escaped(&password(&PasswordPage { action: HOSTILE, error: Some(HOSTILE) }));
        check_escaped(&neutral(&NeutralPage { host: HOSTILE }));
        check_escaped(&docs(&json!({
            "info": { "title": HOSTILE, "description": format!("`{HOSTILE}` [x](javascript:{HOSTILE})") },
            "paths": { HOSTILE: { "get": { "tags": [HOSTILE], "summary": HOSTILE } } },
            "components": { "schemas": { HOSTILE: { "enum": [HOSTILE], "description": HOSTILE } } },
        })));
    }

    #[test]
    fn start_page_is_a_plain_form() {
        let page = home(&start());
        assert!(page.contains(r#"<form class="ask" method="post" action="/-/shorten">"#));
        assert!(page.contains(r#"name="long_url""#));
        assert!(!page.contains("noindex") && !page.contains("<script"));
    }

    #[test]
    fn manage_token_is_shown_once_with_its_warning() {
        let link = CreatedLink { manage_token: Some("s3cret"), ..created() };
        let page = home(&Home { created: Some(link), ..start() });
        assert_eq!(page.matches("<code id=\"manage-token\"").count(), 1);
        assert!(page.contains("It isn’t shown again."));
        assert!(!home(&Home { created: Some(created()), ..start() }).contains("manage-token"));
    }

    #[test]
    fn without_anonymous_creation_there_is_no_form() {
        let page = home(&Home { can_create: false, ..start() });
        assert!(!page.contains("<form"));
        assert!(page.contains("API key") && page.contains(r#"href="/-/docs""#));
    }

    #[test]
    fn lengths_are_told_where_the_link_got_shorter() {
        assert_eq!(created().lengths(), Some((36, 22)));
        assert_eq!(CreatedLink { long_url: "http://a.b", ..created() }.lengths(), None);
        assert_eq!(created().short_url_parts(), ("https://", "sho.rt/Ab3xY7z"));
    }

    #[test]
    fn small_pages_are_not_indexed() {
        let gone = ErrorPage { status: 410, title: "Gone", message: "It expired.", request_id: "r1" };
        for page in [
            error(&gone),
            password(&PasswordPage { action: "/x", error: None }),
            neutral(&NeutralPage { host: "sho.rt" }),
            docs(&Value::Null),
        ] {
            assert!(page.contains(r#"<meta name="robots" content="noindex, nofollow">"#));
            assert_eq!(page.matches("<h1").count(), 1);
        }
    }
}

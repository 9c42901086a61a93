//! What a user agent says of itself: a person's browser, a bot, or a service that shows links where they are posted.
//!
//! No single public list finds more than six in seven bots, so three are put together: the patterns of isbot, those of
//! crawler-user-agents, both brought here by `scripts/renew_agents.py`, and our own below. A missing agent makes nobody
//! a bot: some people's proxies remove it.

mod names;

use super::referrer::cut_at;
use aho_corasick::{AhoCorasick, AhoCorasickKind};
use regex::bytes::{Regex, RegexBuilder};
use std::sync::LazyLock;
use terse_model::click::{Device, Kind, Purpose};

/// As much of a user agent is looked at, in bytes. Longer ones are rare, and their ends tell nothing more.
pub const USER_AGENT_LEN_MAX: usize = 512;

/// What a user agent says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent {
    /// [`Kind::Bot`] or [`Kind::Preview`]; `None` when nothing speaks against a person.
    pub kind: Option<Kind>,
    /// What it runs on.
    pub device: Device,
    /// The name of the browser, or of the app that contains it; empty when unknown.
    pub browser: &'static str,
    /// The name of the operating system; empty when unknown. An iPad's is iPadOS, other than an iPhone's.
    pub os: &'static str,
}

/// Reads a user agent. Takes microseconds: callers keep the answers to frequent ones.
pub fn classify(user_agent: &str) -> Agent {
    let text = cut_at(user_agent, USER_AGENT_LEN_MAX);
    let kind =
        if is_preview(text.as_bytes()) { Some(Kind::Preview) } else { is_bot(text).then_some(Kind::Bot) };
    let names::Names { device, browser, os } = names::names(text);
    Agent { kind, device, browser, os }
}

/// Whether a service asks that shows links where they are posted. Quick enough for the way of a redirect.
pub fn is_preview(user_agent: &[u8]) -> bool {
    static NEEDLES: LazyLock<Needles> = LazyLock::new(|| Needles::own(PREVIEWS));
    NEEDLES.are_in(&user_agent[..user_agent.len().min(USER_AGENT_LEN_MAX)])
}

/// A click's kind. The first that holds:
///
/// 1. A HEAD request is that, whoever sends it: nobody sees a page by it.
/// 2. What a browser fetches ahead is a prefetch: the visit, should it come, is a click of its own.
/// 3. What shows a link where it was posted is a preview, although it is a bot as well.
/// 4. What says to be a bot is one.
/// 5. All others are people.
pub fn kind_of(is_head: bool, purpose: Purpose, agent: &Agent) -> Kind {
    match purpose {
        _ if is_head => Kind::Head,
        Purpose::Prefetch => Kind::Prefetch,
        Purpose::Preview => Kind::Preview,
        Purpose::Visit => agent.kind.unwrap_or(Kind::Human),
    }
}

/// Reads the value of a header Sec-Purpose, Purpose or X-Moz: `prefetch`, `prefetch;prerender`, `preview`. What isn't
/// known is a visit.
pub fn purpose_of(header: &[u8]) -> Purpose {
    // Parameters say how it is fetched ahead, not whether.
    let token = header.split(|byte| matches!(byte, b';' | b',')).next().unwrap_or_default().trim_ascii();
    let is = |name: &str| token.eq_ignore_ascii_case(name.as_bytes());
    if is("prefetch") || is("prerender") {
        Purpose::Prefetch
    } else if is("preview") {
        Purpose::Preview
    } else {
        Purpose::Visit
    }
}

/// Services that show links where they are posted, and proxies of the images in it. Without regard to case; `^` stands
/// for the start, where a name would be in the agent of an app's own browser too.
const PREVIEWS: &[&str] = &[
    // Networks. Apple's iMessage calls itself facebookexternalhit and Twitterbot, LINE facebookexternalhit, and Signal
    // WhatsApp.
    "facebookexternalhit",
    "meta-externalhit",
    "facebot",
    "twitterbot",
    "linkedinbot",
    "pinterestbot",
    "pinterest.com/bot",
    "^pinterest/",
    "redditbot",
    "vkshare",
    "vkrobot",
    "odklbot",
    "^tumblr/",
    "xing bot",
    "xing-contenttabreceiver",
    "quora-bot",
    "quora link preview",
    "everyonesocialbot",
    "mediumbot-metatagfetcher",
    "bitlybot",
    "steamchaturllookup",
    "flipboardproxy",
    "snap url preview",
    "snapurlpreview",
    "hatena::",
    "hatenabookmark",
    // The Fediverse, up to 4.2 and after, and Bluesky.
    "(mastodon/",
    "^mastodon/",
    "^pleroma",
    "^akkoma",
    "^misskey/",
    "^sharkey/",
    "^iceshrimp",
    "summalybot",
    "^friendica",
    "friendica '",
    "^gotosocial",
    "^lemmy/",
    "^pixelfed",
    "^peertube/",
    "^hubzilla",
    "^kbin",
    "^mbin",
    "cardyb",
    "^bluesky/",
    "blueskypreviewbot",
    // Chats.
    "slackbot",
    "slack-imgproxy",
    "^whatsapp",
    "telegrambot",
    "discordbot",
    "skypeuripreview",
    "microsoftpreview",
    "bingpreview/",
    "^viber",
    "line-poker",
    "kakaotalk-scrap",
    "kakaostory-og-reader",
    "dingtalkbot-linkservice",
    "larkurl",
    "developers.google.com/+/web/snippet",
    "google-chat",
    "^googlemessages",
    "google web preview",
    "^zoom ",
    "^zoom/",
    "^zoom.us",
    "zoomlinkpreview",
    "safari/537.36 rocket.chat/",
    "^rocket.chat",
    "^synapse",
    "^matrix-media-repo",
    "^dendrite",
    "mattermost-bot",
    "zulipurlpreview",
    "^zulip url preview",
    "nextcloud server crawler",
    "nextcloud-server-crawler",
    "keybasebot",
    "groupmebot",
    "chatwork linkpreview",
    "the lounge irc client",
    "webexteams",
    "^wire/",
    "gg peekbot",
    // Mail. Office opens a link itself before it hands it to the browser.
    "ms-office",
    "^microsoft office",
    "^outlook-",
    "yahoo link preview",
    "yahoomailproxy",
    "googleimageproxy",
    "fastmailua",
    "evernoterichlinkbot",
    // Services that do it for others, and tools that show links in documents.
    "iframely",
    "embedly",
    "opengraph.io",
    "microlinkhq",
    "^notion/",
    "notionembedder",
    "discourse forum onebox",
    "clickuplinkunfurler",
    "trello-link-preview",
    "github-camo",
    "codabot",
    "bufferlinkpreviewbot",
    // Whatever says so.
    "linkpreview",
    "link-preview",
    "link preview",
    "urlpreview",
    "url-preview",
    "url preview",
    "uripreview",
    "unfurl",
    "linkexpand",
];

/// Bots that neither public list knows. Without regard to case; `^` stands for the start.
const BOTS: &[&str] = &[
    "okhttp",
    "^dalvik/",
    "cfnetwork/",
    "^axios/",
    "^got ",
    "^got/",
    "undici",
    "^node",
    "^deno/",
    "^bun/",
    "^dart/",
    "^ruby",
    "faraday",
    "^reqwest",
    "^ureq",
    "^hyper/",
    "^java",
    "apache-http",
    "^libcurl",
    "powershell",
    "^winhttp",
    "^elinks",
    "^lynx",
    "^links ",
    "^w3m",
    "^fetch/",
    "headlesschrome",
    "phantomjs",
    "puppeteer",
    "lighthouse",
    "anthropic-ai",
    "claude-user",
    "claude-web",
    "chatgpt-user",
    "perplexity-user",
    "mistralai-user",
    "google-extended",
    "cohere-ai",
];

/// Whether it says to be a crawler, monitor, feed reader, library or command-line client.
fn is_bot(text: &str) -> bool {
    static OWN: LazyLock<Needles> = LazyLock::new(|| Needles::own(BOTS));
    static PUBLIC: LazyLock<Public> = LazyLock::new(Public::new);
    let text = text.trim_ascii();
    !text.is_empty() && (OWN.are_in(text.as_bytes()) || PUBLIC.are_in(text.as_bytes()))
}

/// Texts that are searched for all at once.
struct Needles {
    automaton: AhoCorasick,
    /// By the needle's number: whether it counts at the start only.
    anchored: Vec<bool>,
}

impl Needles {
    /// `^` before a needle stands for the start.
    fn new(needles: &[&str], ignores_case: bool, kind: AhoCorasickKind) -> Self {
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(ignores_case)
            .kind(Some(kind))
            .build(needles.iter().map(|needle| needle.strip_prefix('^').unwrap_or(needle)))
            .expect("few and short");
        Needles { automaton, anchored: needles.iter().map(|needle| needle.starts_with('^')).collect() }
    }

    fn own(needles: &[&str]) -> Self {
        Needles::new(needles, true, AhoCorasickKind::DFA)
    }

    fn are_in(&self, text: &[u8]) -> bool {
        let mut found = self.automaton.find_overlapping_iter(text);
        found.any(|one| one.start() == 0 || !self.anchored[one.pattern().as_usize()])
    }
}

/// The public lists.
struct Public {
    texts: [Needles; 2],
    expressions: [Regex; 2],
}

impl Public {
    fn new() -> Self {
        let isbot = List::read(include_str!("../../data/agents/isbot.txt"));
        let crawlers = List::read(include_str!("../../data/agents/crawlers.txt"));
        // Those at the start are apart from those anywhere. Together they would have a state for each pair of a length
        // that one of the former counts to and a beginning of one of the latter: agents made for it took a thousand
        // times as long.
        let all = isbot.expressions.iter().map(|expression| ("i", expression));
        let all = all.chain(crawlers.expressions.iter().map(|expression| ("", expression)));
        let (starts, others): (Vec<_>, Vec<_>) = all.partition(|(_, expression)| expression.starts_with('^'));
        let any_of = |parts: Vec<(&str, &&str)>| {
            let parts: Vec<_> =
                parts.iter().map(|(flags, expression)| format!("(?{flags}:{expression})")).collect();
            // Not Unicode: agents are ASCII, and the lists mean it by \w and \b.
            RegexBuilder::new(&parts.join("|")).unicode(false).build().expect("tests read the same lists")
        };
        Public {
            texts: [
                Needles::new(&isbot.texts, true, AhoCorasickKind::DFA),
                Needles::new(&crawlers.texts, false, AhoCorasickKind::ContiguousNFA),
            ],
            expressions: [any_of(starts), any_of(others)],
        }
    }

    fn are_in(&self, text: &[u8]) -> bool {
        self.texts.iter().any(|texts| texts.are_in(text))
            || self.expressions.iter().any(|expression| expression.is_match(text))
    }
}

/// A file that the script wrote.
struct List {
    texts: Vec<&'static str>,
    expressions: Vec<&'static str>,
}

impl List {
    fn read(file: &'static str) -> Self {
        let expression = |line: &'static str| line.strip_prefix('/')?.strip_suffix('/');
        let (mut texts, mut expressions) = (Vec::new(), Vec::new());
        for line in file.lines().filter(|line| !line.starts_with('#')) {
            match expression(line) {
                Some(expression) => expressions.push(expression),
                None => texts.push(line),
            }
        }
        List { texts, expressions }
    }
}

#[cfg(test)]
mod tests;

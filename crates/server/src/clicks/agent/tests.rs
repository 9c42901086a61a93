use super::*;
use proptest::prelude::*;

/// Agents of browsers with device, browser and system.
const BROWSERS: &str = include_str!("../../../testdata/agents/browsers.txt");
const BROWSERS_PUBLIC: &str = include_str!("../../../testdata/agents/browsers_public.txt");
const CRAWLERS: &str = include_str!("../../../testdata/agents/crawlers.txt");

fn lines(file: &'static str) -> impl Iterator<Item = &'static str> {
    file.lines().filter(|line| !line.starts_with('#'))
}

#[track_caller]
fn check(user_agent: &str, expected: Kind) {
    let kind = kind_of(false, Purpose::Visit, &classify(user_agent));
    assert_eq!(kind, expected, "{user_agent}");
    assert_eq!(is_preview(user_agent.as_bytes()), expected == Kind::Preview, "{user_agent}");
}

#[test]
fn what_says_nothing_is_a_person() {
    check("", Kind::Human);
    check("  ", Kind::Human);
    assert_eq!(classify(""), Agent { kind: None, device: Device::Unknown, browser: "", os: "" });
}

#[test]
fn browsers_are_people_with_names() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for line in lines(BROWSERS) {
        let [device, browser, os, user_agent] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("three tabs: {line}");
        };
        let agent = classify(user_agent);
        let found = (agent.kind, agent.device.as_str(), agent.browser, agent.os);
        if found != (None, device, browser, os) {
            wrong.push(format!("{found:?}\n  {line}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 80, "{count}");
}

#[test]
fn no_browser_of_a_public_list_is_a_bot() {
    let bots: Vec<_> = lines(BROWSERS_PUBLIC).filter(|line| classify(line).kind.is_some()).collect();
    assert!(bots.is_empty(), "{} of {}:\n{}", bots.len(), lines(BROWSERS_PUBLIC).count(), bots.join("\n"));
    assert!(lines(BROWSERS_PUBLIC).count() >= 500);
    let nameless: Vec<_> = lines(BROWSERS_PUBLIC).filter(|line| classify(line).browser.is_empty()).collect();
    assert!(nameless.is_empty(), "no name:\n{}", nameless.join("\n"));
}

#[test]
fn of_a_public_list_of_crawlers_at_most_one_percent_passes() {
    let count = lines(CRAWLERS).count();
    let people: Vec<_> = lines(CRAWLERS).filter(|line| classify(line).kind.is_none()).collect();
    assert!(people.len() * 100 <= count, "{} of {count}:\n{}", people.len(), people.join("\n"));
    assert!(count >= 2000);
}

#[test]
fn previews() {
    for user_agent in [
        "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
        "Slack-ImgProxy (+https://api.slack.com/robots)",
        "Slackbot 1.0 (+https://api.slack.com/robots)",
        "Twitterbot/1.0",
        "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
        // iMessage.
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko) Version/9.0.1 Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0",
        // LINE.
        "facebookexternalhit/1.1;line-poker/1.0",
        "WhatsApp/2.23.20.0",
        "WhatsApp/2",
        "WhatsApp",
        "TelegramBot (like TwitterBot)",
        "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
        "http.rb/5.1.1 (Mastodon/4.2.10; +https://mastodon.social/)",
        "http.rb/5.1.1 (Mastodon/4.2.10; +https://mastodon.social/) Bot",
        "Mastodon/4.3.1 (http.rb/5.2.0; +https://mastodon.social/)",
        "Mastodon/4.4.0 (http.rb/5.3.1; +https://mastodon.social/) Bot",
        "Pleroma 2.6.0; https://example.social <admin@example.social>",
        "Misskey/2024.10.1 (https://misskey.io)",
        "Friendica 'The Tazmans Flax-lily' 2019.01-1293; https://hoyer.xyz",
        "gotosocial/0.17.0 (+https://example.social)",
        "Mozilla/5.0 (compatible; Bluesky Cardyb/1.1; +mailto:support@bsky.app)",
        "LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)",
        "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5 skype-url-preview@microsoft.com",
        "Mozilla/5.0 (compatible; MicrosoftPreview/2.0; +https://aka.ms/MicrosoftPreview)",
        "Viber/13.3.0.5",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/56.0.2924.87 Safari/537.36 Google (+https://developers.google.com/+/web/snippet/)",
        "Pinterest/0.2 (+https://www.pinterest.com/bot.html)",
        "Mozilla/5.0 (compatible; Pinterestbot/1.0; +https://www.pinterest.com/bot.html)",
        "Mozilla/5.0 (compatible; redditbot/1.0; +http://www.reddit.com/feedback)",
        "Mozilla/5.0 (compatible; vkShare; +http://vk.com/dev/Share)",
        "Iframely/1.3.1 (+https://iframely.com/docs/about)",
        "Mozilla/5.0 (compatible; Embedly/0.2; +http://support.embed.ly/)",
        "Snap URL Preview Service; bot; snapchat; https://developers.snap.com/robots",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/41.0.2227.0 Safari/537.36 Rocket.Chat/6.5.0",
        "Synapse (bot; +https://github.com/matrix-org/synapse)",
        "Nextcloud Server Crawler",
        "Nextcloud-Server-Crawler/33.0.0",
        "Mattermost-Bot/1.1",
        "Mozilla/4.0 (compatible; ms-office; MSOffice 16)",
        "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17328; Pro)",
        "Discourse Forum Onebox v3.3.0.beta1-dev",
        "ZULIPURLPREVIEW/8.0",
    ] {
        check(user_agent, Kind::Preview);
    }
}

#[test]
fn bots() {
    for user_agent in [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) Chrome/116.0.1938.76 Safari/537.36",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko); compatible; ChatGPT-User/1.0; +https://openai.com/bot",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; ClaudeBot/1.0; +claudebot@anthropic.com)",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Claude-User/1.0; +Claude-User@anthropic.com)",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; PerplexityBot/1.0; +https://perplexity.ai/perplexitybot)",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Perplexity-User/1.0; +https://perplexity.ai/perplexity-user)",
        "meta-externalagent/1.1 (+https://developers.facebook.com/docs/sharing/webmasters/crawler)",
        "Mozilla/5.0 (compatible; bytespider; spider-feedback@bytedance.com)",
        "CCBot/2.0 (https://commoncrawl.org/faq/)",
        "Mozilla/5.0 (compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
        "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)",
        "Feedly/1.0 (+http://www.feedly.com/fetcher.html; like FeedFetcher-Google)",
        "FreshRSS/1.24.3 (Linux; https://freshrss.org)",
        "Tiny Tiny RSS/21.11 (http://tt-rss.org/)",
        "NetNewsWire (RSS Reader; https://netnewswire.com/)",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/131.0.0.0 Safari/537.36",
        "Mozilla/5.0 (Unknown; Linux x86_64) AppleWebKit/538.1 (KHTML, like Gecko) PhantomJS/2.1.1 Safari/538.1",
        "curl/8.11.0",
        "Wget/1.24.5",
        "HTTPie/3.2.3",
        "python-requests/2.32.3",
        "Python-urllib/3.12",
        "Python/3.12 aiohttp/3.11.2",
        "aiohttp/3.8",
        "python-httpx/0.27.2",
        "Scrapy/2.11.2 (+https://scrapy.org)",
        "Go-http-client/1.1",
        "Go-http-client/2.0",
        "okhttp/4.12.0",
        "axios/1.7.7",
        "node-fetch/1.0 (+https://github.com/bitinn/node-fetch)",
        "node",
        "undici",
        "got (https://github.com/sindresorhus/got)",
        "Deno/2.0.6",
        "Bun/1.1.34",
        "Java/21.0.5",
        "Java-http-client/21.0.5",
        "Apache-HttpClient/4.5.14 (Java/17.0.13)",
        "libwww-perl/6.77",
        "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.5007",
        "Mozilla/5.0 (Windows NT 10.0; Microsoft Windows 10.0.22631; en-US) PowerShell/7.4.6",
        "Dart/3.5 (dart:io)",
        "Ruby",
        "Faraday v2.12.0",
        "reqwest/0.12.9",
        "ureq/2.10.1",
        "GuzzleHttp/7",
        "PostmanRuntime/7.42.0",
        "insomnia/10.1.1",
        "Dalvik/2.1.0 (Linux; U; Android 14; SM-S918B Build/UP1A.231005.007)",
        "MyApp/1 CFNetwork/1568.200.51 Darwin/24.1.0",
        "Lynx/2.9.2 libwww-FM/2.14 SSL-MM/1.4.1 OpenSSL/3.0.15",
        "bot",
        "crawler",
    ] {
        check(user_agent, Kind::Bot);
    }
}

#[test]
fn the_first_reason_counts() {
    let agent = |kind| Agent { kind, ..classify("") };
    let check = |is_head, purpose, kind, expected| {
        assert_eq!(kind_of(is_head, purpose, &agent(kind)), expected);
    };
    check(true, Purpose::Prefetch, Some(Kind::Bot), Kind::Head);
    check(false, Purpose::Prefetch, Some(Kind::Bot), Kind::Prefetch);
    check(false, Purpose::Preview, None, Kind::Preview);
    check(false, Purpose::Visit, Some(Kind::Preview), Kind::Preview);
    check(false, Purpose::Visit, Some(Kind::Bot), Kind::Bot);
    check(false, Purpose::Visit, None, Kind::Human);
}

#[test]
fn purposes() {
    let check = |value: &str, expected| assert_eq!(purpose_of(value.as_bytes()), expected, "{value}");
    check("prefetch", Purpose::Prefetch);
    check("Prefetch", Purpose::Prefetch);
    check(" prefetch;prerender", Purpose::Prefetch);
    check("prefetch;anonymous-client-ip", Purpose::Prefetch);
    check("prefetch; anonymous-client-ip", Purpose::Prefetch);
    check("prerender", Purpose::Prefetch);
    check("preview", Purpose::Preview);
    check("", Purpose::Visit);
    check("prefetched", Purpose::Visit);
    check("navigate", Purpose::Visit);
}

#[test]
fn the_longest_agent_is_read_in_bounded_time() {
    for filler in ["a", " ", "Mozilla/5.0 (", "bo", "\u{e4}", "a/1.0 ", "1.1.1.1"] {
        let text = filler.repeat(1_000_000 / filler.len());
        let began = std::time::Instant::now();
        classify(&text);
        is_preview(text.as_bytes());
        // Without optimisation, on a busy machine, and with the lists yet to be built.
        assert!(began.elapsed().as_secs() < 5, "{filler}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..1200)) {
        is_preview(&bytes);
        classify(&String::from_utf8_lossy(&bytes));
        purpose_of(&bytes);
    }

    #[test]
    fn what_follows_the_bound_changes_nothing(start in "[ -~\u{e4}\u{1f600}]{0,1100}", more in "[ -~]{0,40}") {
        let filled = format!("{start}{}", " ".repeat(USER_AGENT_LEN_MAX.saturating_sub(start.len())));
        let longer = format!("{filled}{more} Googlebot Twitterbot/1.0 Firefox/1.0 iPad");
        prop_assert_eq!(classify(&filled), classify(&longer));
        prop_assert_eq!(is_preview(filled.as_bytes()), is_preview(longer.as_bytes()));
    }
}

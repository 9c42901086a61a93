//! [`Traffic`]: made-up clicks that look like real ones. The same seed makes the same clicks.
//!
//! A day's people come first for the first time and some come again; a person keeps country, language and browser for
//! the day. What a user agent means is what terse finds in it, so that counts and raw events tell the same story.

use std::fmt::Write;
use std::ops::Range;
use terse::clicks::agent::{Agent, classify, kind_of};
use terse::clicks::referrer::host_of;
use terse_model::click::{
    Click, ClickId, Country, Day, Facts, Kind, Purpose, QUARTER_MILLIS, QUARTERS, VisitorHash,
};
use terse_model::code_space::LinkId;
use terse_model::domain::DomainId;
use terse_model::tenant::UserId;
use terse_model::time::Timestamp;

/// Whose link is clicked.
pub const OWNER: UserId = UserId(1);
/// Where.
pub const DOMAIN: DomainId = DomainId(0);

/// A human click comes from somebody new with this probability, else from somebody seen before on the same day.
const IS_NEW: f64 = 0.6;
/// Of a thousand clicks.
const BOTS: u64 = 50;
const PREVIEWS: u64 = 12;
const PREFETCHES: u64 = 8;
const HEADS: u64 = 5;
/// Addresses that a day's bots come from.
const BOT_ADDRESSES: u64 = 2_000;

/// Of a hundred people's clicks, those without a referrer, and those from a host that is seldom seen again.
const DIRECT: u64 = 30;
const RARE: u64 = 2;
const RARE_HOSTS: u64 = 1_000_000;
/// Hosts that link here all the time.
const HOSTS: u64 = 300;
const HOSTS_EXPONENT: f64 = 1.1;
/// Pages of a host, where its browser tells more than the host.
const PAGES: usize = 500;

/// Days counted from the last one on which a link goes round, how many times the usual clicks that day has, and the
/// host that they come from. The two days after have part of it.
const SPIKES: [(i32, f64, &str); 4] = [
    (14, 2.0, "https://lobste.rs/"),
    (122, 7.0, "https://news.ycombinator.com/"),
    (201, 11.0, "https://www.reddit.com/"),
    (303, 5.0, "https://t.co/"),
];
const AFTERGLOW: [f64; 3] = [1.0, 0.4, 0.15];

/// From Monday on.
const WEEKDAYS: [f64; 7] = [1.08, 1.14, 1.15, 1.12, 1.04, 0.74, 0.78];
/// From 00:00 UTC on.
const HOURS: [f64; 24] = [
    0.62, 0.55, 0.50, 0.47, 0.46, 0.50, 0.62, 0.80, 0.98, 1.10, 1.17, 1.20, 1.25, 1.33, 1.42, 1.48, 1.50,
    1.46, 1.40, 1.35, 1.28, 1.12, 0.92, 0.74,
];

/// Clicks of one link.
#[derive(Debug)]
pub struct Traffic {
    seed: u64,
    days: Range<Day>,
    /// Clicks before each quarter of an hour, and at the end all of them.
    before: Vec<u64>,
    places: Choice<Place>,
    languages: Vec<&'static str>,
    hosts: Choice<String>,
    pages: Choice<usize>,
    browsers: Choice<Program>,
    bots: Choice<Program>,
    previews: Choice<Program>,
}

/// A country with the languages of its people, the most frequent one first.
#[derive(Debug)]
struct Place {
    country: Country,
    languages: Vec<&'static str>,
}

/// A user agent, and what terse finds in it.
#[derive(Debug)]
struct Program {
    user_agent: String,
    agent: Agent,
}

/// Somebody on one day.
#[derive(Clone, Copy, Debug)]
struct Person<'a> {
    visitor: VisitorHash,
    place: &'a Place,
    language: &'a str,
    program: &'a Program,
}

impl Traffic {
    /// So many clicks, spread over `days`.
    pub fn new(seed: u64, clicks: u64, days: Range<Day>) -> Self {
        let mut chance = Chance::new(seed, 0);
        let before = before_quarters(&mut chance, clicks, &days);
        let places = places();
        let mut languages: Vec<_> =
            places.things().flat_map(|place| place.languages.iter().copied()).collect();
        languages.sort_unstable();
        languages.dedup();
        Traffic {
            seed,
            days,
            before,
            places,
            languages,
            hosts: hosts(),
            pages: Choice::new((0..PAGES).map(|page| (1.0 / (page + 1) as f64, page))),
            browsers: browsers(),
            bots: programs(&[
                (60, GOOGLEBOT),
                (20, BINGBOT),
                (10, AHREFS),
                (25, CURL),
                (20, PYTHON),
                (8, UPTIME),
            ]),
            previews: programs(&[(40, FACEBOOK_PREVIEW), (25, TWITTERBOT), (20, SLACKBOT), (15, WHATSAPP)]),
        }
    }

    /// The days that clicks are spread over.
    pub fn days(&self) -> Range<Day> {
        self.days.clone()
    }

    /// Visits the clicks of a day in the order of time. `link` tells which link the click of that number goes to.
    pub fn visit(&self, day: Day, link: impl Fn(u64) -> LinkId, mut visit: impl FnMut(&Click<'_>)) {
        let mut chance = Chance::new(self.seed, 1 + day.0 as u64);
        let spike = SPIKES.iter().find_map(|(ago, times, from)| {
            let since = day.0 - (self.days.end.0 - ago);
            let extra = AFTERGLOW.get(usize::try_from(since).ok()?)? * times;
            Some((extra / (1.0 + extra), *from))
        });
        let mut people: Vec<Person<'_>> = Vec::new();
        let mut referrer = String::new();
        let mut id =
            ClickId { node: self.seed, lane: 0, segment: u64::from(day.0.unsigned_abs()), offset: 0 };
        let first = (day.0 - self.days.start.0) as usize * usize::from(QUARTERS);
        let mut number = self.before[first];
        for quarter in 0..usize::from(QUARTERS) {
            let clicks = self.before[first + quarter + 1] - self.before[first + quarter];
            let start = day.start().as_millis() + quarter as i64 * QUARTER_MILLIS;
            for at in 0..clicks {
                let [from, to] = [at, at + 1].map(|at| at * QUARTER_MILLIS as u64 / clicks);
                let at = Timestamp::from_millis(start + (from + chance.below((to - from).max(1))) as i64);
                let (person, is_head, purpose) = self.who(&mut chance, day, &mut people);
                let kind = kind_of(is_head, purpose, &person.program.agent);
                referrer.clear();
                if matches!(kind, Kind::Human | Kind::Prefetch) {
                    self.write_referrer(&mut chance, spike, &mut referrer);
                }
                let host = host_of(&referrer);
                let Agent { device, browser, os, .. } = person.program.agent;
                id.lane ^= 1;
                id.offset += 90 + (referrer.len() + person.program.user_agent.len()) as u32;
                visit(&Click {
                    id,
                    at,
                    link: link(number),
                    domain: DOMAIN,
                    owner: Some(OWNER),
                    tags: "",
                    visitor: person.visitor,
                    is_head,
                    purpose,
                    referrer: &referrer,
                    user_agent: &person.program.user_agent,
                    facts: Facts {
                        kind,
                        referrer: &host,
                        country: person.place.country.as_str(),
                        device,
                        browser,
                        os,
                        language: person.language,
                    },
                });
                number += 1;
            }
        }
    }

    /// Who clicks next, whether by HEAD, and why.
    fn who<'a>(
        &'a self,
        chance: &mut Chance,
        day: Day,
        people: &mut Vec<Person<'a>>,
    ) -> (Person<'a>, bool, Purpose) {
        let kind = chance.below(1000);
        if kind < BOTS + PREVIEWS + HEADS {
            let programs = if (BOTS..BOTS + PREVIEWS).contains(&kind) { &self.previews } else { &self.bots };
            let visitor = visitor(self.seed, day, u64::MAX - chance.below(BOT_ADDRESSES));
            let (place, program) = (self.places.pick(chance), programs.pick(chance));
            let bot = Person { visitor, place, language: "", program };
            return (bot, kind >= BOTS + PREVIEWS, Purpose::Visit);
        }
        let is_prefetch = kind < BOTS + PREVIEWS + HEADS + PREFETCHES;
        let purpose = if is_prefetch { Purpose::Prefetch } else { Purpose::Visit };
        if people.is_empty() || chance.is(IS_NEW) {
            let place = self.places.pick(chance);
            let language = self.language(chance, place);
            let visitor = visitor(self.seed, day, people.len() as u64);
            people.push(Person { visitor, place, language, program: self.browsers.pick(chance) });
            return (people[people.len() - 1], false, purpose);
        }
        (people[chance.below(people.len() as u64) as usize], false, purpose)
    }

    /// Mostly a language of the country, sometimes English or any, and seldom none.
    fn language(&self, chance: &mut Chance, place: &Place) -> &'static str {
        match chance.below(100) {
            0..3 => "",
            3..7 => self.languages[chance.below(self.languages.len() as u64) as usize],
            7..15 => "en-us",
            15..35 => place.languages[chance.below(place.languages.len() as u64) as usize],
            _ => place.languages[0],
        }
    }

    /// The page that links here: of most, browsers tell the host alone.
    fn write_referrer(&self, chance: &mut Chance, spike: Option<(f64, &str)>, out: &mut String) {
        if let Some((share, from)) = spike
            && chance.is(share)
        {
            out.push_str(from);
            return;
        }
        let kind = chance.below(100);
        if kind < DIRECT {
            return;
        }
        if kind < DIRECT + RARE {
            write!(out, "https://notes-{}.example/", chance.below(RARE_HOSTS)).expect("a string takes all");
            return;
        }
        out.push_str(self.hosts.pick(chance));
        if chance.below(10) < 3 {
            write!(out, "posts/{:04}.html", self.pages.pick(chance)).expect("a string takes all");
        }
    }
}

fn visitor(seed: u64, day: Day, number: u64) -> VisitorHash {
    VisitorHash(mixed(mixed(seed ^ (day.0 as u64) << 40).wrapping_add(number)))
}

/// Shares the clicks out to quarters of an hour, to the last one.
fn before_quarters(chance: &mut Chance, clicks: u64, days: &Range<Day>) -> Vec<u64> {
    let mut weight = 0.0;
    let mut weights = vec![0.0];
    for day in (days.start.0..days.end.0).map(Day) {
        // 1970-01-01 was a Thursday.
        let weekday = WEEKDAYS[(day.0 + 3).rem_euclid(7) as usize];
        let spikes: f64 = SPIKES
            .iter()
            .filter_map(|(ago, times, _)| {
                let since = usize::try_from(day.0 - (days.end.0 - ago)).ok()?;
                Some(AFTERGLOW.get(since)? * times)
            })
            .sum();
        let of_day = weekday * (0.85 + 0.3 * chance.unit()) * (1.0 + spikes);
        for quarter in 0..usize::from(QUARTERS) {
            let (hour, part) = (quarter / 4, (quarter % 4) as f64 / 4.0);
            let of_hour = HOURS[hour] * (1.0 - part) + HOURS[(hour + 1) % 24] * part;
            weight += of_day * of_hour * (0.9 + 0.2 * chance.unit());
            weights.push(weight);
        }
    }
    weights.iter().map(|before| (before / weight * clicks as f64).round() as u64).collect()
}

/// Random numbers: SplitMix64.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn new(seed: u64, stream: u64) -> Self {
        Chance(mixed(seed ^ mixed(stream)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn is(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }
}

fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// Things with weights.
#[derive(Debug)]
struct Choice<T> {
    /// Each thing with the sum of the weights up to its own.
    things: Vec<(f64, T)>,
}

impl<T> Choice<T> {
    fn new(things: impl IntoIterator<Item = (f64, T)>) -> Self {
        let mut sum = 0.0;
        let add = |(weight, thing)| {
            sum += weight;
            (sum, thing)
        };
        Choice { things: things.into_iter().map(add).collect() }
    }

    fn pick(&self, chance: &mut Chance) -> &T {
        let last = self.things.len() - 1;
        let wanted = chance.unit() * self.things[last].0;
        let at = self.things.partition_point(|(sum, _)| *sum <= wanted);
        &self.things[at.min(last)].1
    }

    fn things(&self) -> impl Iterator<Item = &T> {
        self.things.iter().map(|(_, thing)| thing)
    }
}

/// The weight, the country, its languages.
const COUNTRIES: &str = "
2300 US en-us es-us es-mx; 900 IN en-in hi-in ta-in en-us; 620 DE de-de en-us tr-tr;
560 GB en-gb en-us pl-pl; 480 BR pt-br en-us; 430 FR fr-fr; 410 JP ja-jp; 330 CA en-ca fr-ca en-us;
300 ID id-id; 280 RU ru-ru; 270 ES es-es es-419 en-us; 265 MX es-mx es-419; 260 IT it-it;
250 NL nl-nl en-us; 240 AU en-au en-gb; 230 PL pl-pl; 210 TR tr-tr; 200 PH en-gb en-us fil-ph; 190 KR ko-kr;
180 VN vi-vn; 170 UA uk-ua ru-ru; 160 SE sv-se; 150 CH de-ch fr-ch it-ch de-de; 145 AT de-at de-de;
140 BE nl-be fr-be; 138 AR es-419; 130 PK en-gb en-in; 128 CN zh-cn zh-tw; 125 TH th-th; 122 NG en-gb;
118 CO es-419; 115 EG ar en-us; 110 SA ar; 108 ZA en-gb en-us; 105 CZ cs-cz; 100 RO ro-ro; 98 PT pt-pt;
96 TW zh-tw; 94 MY en-gb id-id zh-cn; 92 DK da-dk; 90 FI fi-fi sv-se; 88 NO nb-no; 86 HK zh-tw en-gb;
84 SG en-gb zh-cn; 82 IL he-il ru-ru; 80 GR el-gr; 78 HU hu-hu; 76 IE en-gb; 74 CL es-419; 72 AE en-gb ar;
70 BD bn-bd en-us; 68 PE es-419; 66 NZ en-gb; 64 KE en-gb en-us; 62 MA fr-fr ar; 60 IR fa; 58 SK sk-sk;
56 BG bg-bg; 54 RS sr-rs; 52 HR hr-hr; 50 DZ fr-fr ar; 48 VE es-419; 46 LK en-gb en-us; 44 EC es-419;
42 KZ ru-ru en-us; 40 LT lt-lt; 38 SI sl-si; 36 LV lv-lv ru-ru; 34 EE et-ee; 32 TN fr-fr ar; 31 GH en-gb;
30 NP en-gb en-us; 29 MM en-us; 28 KH km-kh; 27 DO es-419; 26 CR es-419; 25 UY es-419; 24 GT es-419;
23 JO ar; 22 LB ar fr-fr; 21 IQ ar; 20 KW ar; 19 QA ar en-gb; 18 BY ru-ru en-us; 17 GE en-us; 16 AM en-us;
15 AZ en-us; 14 UZ en-us ru-ru; 14 BO es-419; 13 PY es-419; 13 SV es-419; 12 HN es-419; 12 PA es-419;
11 NI es-419; 11 PR es-419 en-us; 10 JM en-gb; 10 TT en-gb; 9 IS en-us; 9 LU fr-fr de-de; 8 MT en-gb;
8 CY el-gr; 7 AL en-us; 7 MK en-us; 7 BA hr-hr; 6 ME sr-rs; 6 MD ro-ro; 6 ET en-us; 5 TZ en-us; 5 UG en-gb;
5 CM fr-fr; 4 CI fr-fr; 4 SN fr-fr; 4 AO pt-pt; 3 MZ pt-pt; 3 ZM en-gb; 3 ZW en-gb; 3 BW en-gb; 2 MU en-gb;
2 RE fr-fr; 2 MG fr-fr; 2 BH ar; 2 OM ar; 2 MN en-us; 1 LA en-us; 1 BN id-id; 1 FJ en-gb; 1 MV en-gb;
1 CU es-419; 1 HT fr-fr; 1 AF fa; 1 LY ar; 1 SD ar; 1 YE ar; 1 SY ar";

fn places() -> Choice<Place> {
    Choice::new(COUNTRIES.split(';').map(|place| {
        let mut words = place.split_whitespace();
        let mut word = || words.next().expect("a weight, a country and languages");
        let weight = word().parse().expect("a number");
        let country = Country::parse(word()).expect("a country");
        (weight, Place { country, languages: words.collect() })
    }))
}

/// Those that most people come from, by falling weight. The rest have names without meaning.
const KNOWN_HOSTS: &str = "www.google.com t.co www.facebook.com l.instagram.com www.linkedin.com www.youtube.com
    www.reddit.com news.ycombinator.com duckduckgo.com www.bing.com www.google.de lm.facebook.com out.reddit.com
    mail.google.com www.google.co.uk web.whatsapp.com github.com l.facebook.com www.google.fr old.reddit.com medium.com
    web.telegram.org www.pinterest.com statics.teams.cdn.office.net app.slack.com outlook.live.com yandex.ru
    www.google.co.in www.google.com.br search.yahoo.com www.baidu.com bsky.app mastodon.social substack.com discord.com";

fn hosts() -> Choice<String> {
    let known = KNOWN_HOSTS.split_whitespace().map(str::to_owned);
    let others = (0..).map(|number| format!("www.magazine-{number:03}.example"));
    let hosts = known.chain(others).take(HOSTS as usize);
    let weight = |rank: usize| 1.0 / ((rank + 1) as f64).powf(HOSTS_EXPONENT);
    Choice::new(hosts.enumerate().map(|(rank, host)| (weight(rank), format!("https://{host}/"))))
}

/// Browsers of people: a weight and a user agent, in which `#` is a version and `@` the model of a phone.
const BROWSERS: [(u32, &str); 20] = [
    (
        170,
        "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/#.0.0.0 Mobile Safari/537.36",
    ),
    (
        170,
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/#.0.0.0 Safari/537.36",
    ),
    (
        160,
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/#.0 Mobile/15E148 Safari/604.1",
    ),
    (
        60,
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/#.0.0.0 Safari/537.36",
    ),
    (
        45,
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/#.0 Safari/605.1.15",
    ),
    (
        45,
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/#.0.0.0 Safari/537.36 Edg/#.0.0.0",
    ),
    (30, "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:#.0) Gecko/20100101 Firefox/#.0"),
    (10, "Mozilla/5.0 (X11; Linux x86_64; rv:#.0) Gecko/20100101 Firefox/#.0"),
    (
        8,
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/#.0.0.0 Safari/537.36",
    ),
    (
        30,
        "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/#.0.0.0 Mobile Safari/537.36",
    ),
    (
        22,
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/#.0.0.0 Mobile/15E148 Safari/604.1",
    ),
    (
        55,
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/22F76 Instagram #.0.0.30.84 (iPhone@; iOS 18_5; en_US; en; scale=3.00; 1179x2556)",
    ),
    (
        40,
        "Mozilla/5.0 (Linux; Android 14; SM-@ Build/UP1A.231005.007; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/#.0.0.0 Mobile Safari/537.36 Instagram #.0.0.47.76 Android",
    ),
    (
        45,
        "Mozilla/5.0 (Linux; Android 14; SM-@ Build/UP1A.231005.007; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/#.0.0.0 Mobile Safari/537.36 [FB_IAB/FB4A;FBAV/#.0.0.52.102;]",
    ),
    (
        30,
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 [FBAN/FBIOS;FBAV/#.0.0.50.102;FBDV/iPhone@;FBMD/iPhone;FBSN/iOS]",
    ),
    (
        14,
        "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/#.0.0.0 Mobile/15E148 Safari/604.1",
    ),
    (
        10,
        "Mozilla/5.0 (Linux; Android 13; SM-X@) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/#.0.0.0 Safari/537.36",
    ),
    (
        12,
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/#.0.0.0 Safari/537.36 OPR/#.0.0.0",
    ),
    (
        6,
        "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/#.0.0.0 Safari/537.36",
    ),
    (
        3,
        "Mozilla/5.0 (SMART-TV; LINUX; Tizen 7.0) AppleWebKit/537.36 (KHTML, like Gecko) #.0/7.0 TV Safari/537.36",
    ),
];

const GOOGLEBOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
const BINGBOT: &str = "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)";
const AHREFS: &str = "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)";
const CURL: &str = "curl/8.14.1";
const PYTHON: &str = "python-requests/2.32.3";
const UPTIME: &str = "Mozilla/5.0 (compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)";
const FACEBOOK_PREVIEW: &str = "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)";
const TWITTERBOT: &str = "Twitterbot/1.0";
const SLACKBOT: &str = "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)";
const WHATSAPP: &str = "WhatsApp/2.23.20.0";

/// Half of the people have the newest version, half of the others the one before, and so on.
const VERSIONS: i32 = 9;
const NEWEST_VERSION: i32 = 140;
const MODELS: u32 = 24;

fn browsers() -> Choice<Program> {
    let versions = |(weight, template): &(u32, &'static str)| {
        let (weight, template) = (f64::from(*weight), *template);
        (0..VERSIONS).map(move |age| {
            (weight / 2f64.powi(age), template.replace('#', &(NEWEST_VERSION - age).to_string()))
        })
    };
    let models = |(weight, template): (f64, String)| {
        let models = if template.contains('@') { MODELS } else { 1 };
        (0..models).map(move |model| {
            (weight / f64::from(models), template.replace('@', &format!("{}", 901 + 5 * model)))
        })
    };
    Choice::new(
        BROWSERS.iter().flat_map(versions).flat_map(models).map(|(weight, text)| (weight, program(text))),
    )
}

fn programs(user_agents: &[(u32, &str)]) -> Choice<Program> {
    Choice::new(user_agents.iter().map(|(weight, text)| (f64::from(*weight), program((*text).to_owned()))))
}

fn program(user_agent: String) -> Program {
    let agent = classify(&user_agent);
    Program { user_agent, agent }
}

use super::*;
use proptest::prelude::*;

/// A click whose texts are chosen from few, so that they repeat.
fn click() -> impl Strategy<Value = Click<'static>> {
    let texts =
        prop::sample::select(vec!["", "a", "b\n", "Mozilla/5.0 (X11)", "ünï", "https://a.example/?q"]);
    let number = || prop_oneof![0..4_u64, any::<u64>(), Just(u64::MAX)];
    let id = (number(), prop_oneof![0..3_u16, any::<u16>()], number(), any::<u32>());
    let who = (number(), 0..3_u32, prop::option::of(prop_oneof![0..3_u32, Just(u32::MAX)]), any::<bool>());
    let enums = (
        prop::sample::select(Kind::ALL),
        prop::sample::select(Device::ALL),
        prop::sample::select(Purpose::ALL),
    );
    let at = prop_oneof![0..3_600_000_i64, any::<i64>()];
    (id, at, number(), who, enums, prop::collection::vec(texts, TEXTS)).prop_map(
        |((node, lane, segment, offset), at, link, (visitor, domain, owner, is_head), enums, texts)| Click {
            id: ClickId { node, lane, segment, offset },
            at: Timestamp::from_millis(at),
            link: LinkId(link),
            domain: DomainId(domain),
            owner: owner.map(UserId),
            tags: texts[0],
            visitor: VisitorHash(visitor),
            is_head,
            purpose: enums.2.0,
            referrer: texts[1],
            user_agent: texts[2],
            facts: Facts {
                kind: enums.0.0,
                referrer: texts[3],
                country: texts[4],
                device: enums.1.0,
                browser: texts[5],
                os: texts[6],
                language: texts[7],
            },
        },
    )
}

fn block(clicks: &[Click<'_>]) -> ClickBlock {
    let mut block = ClickBlock::default();
    clicks.iter().for_each(|click| block.push(click));
    block
}

proptest! {
    #[test]
    fn what_is_pushed_is_there(clicks in prop::collection::vec(click(), 0..50)) {
        let block = block(&clicks);
        prop_assert_eq!(block.len(), clicks.len());
        prop_assert!(block.iter().eq(clicks));
    }

    #[test]
    fn what_is_copied_is_there(
        clicks in prop::collection::vec(click(), 1..50),
        others in prop::collection::vec(click(), 0..10),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let (from, mut copy, mut known) = (block(&clicks), block(&others), KnownTexts::default());
        let indices: Vec<usize> = picks.iter().map(|pick| pick.index(clicks.len())).collect();
        indices.iter().for_each(|index| copy.push_from(&from, *index, &mut known));
        prop_assert!(copy.iter().eq(others.into_iter().chain(indices.iter().map(|index| clicks[*index]))));
    }

    #[test]
    fn what_is_encoded_is_decoded(
        clicks in prop::collection::vec(click(), 1..50),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let block = block(&clicks);
        let indices: Vec<u32> = picks.iter().map(|pick| pick.index(clicks.len()) as u32).collect();
        let decoded = ClickBlock::decode(&block.encode(&indices)).unwrap();
        prop_assert!(decoded.iter().eq(indices.iter().map(|index| clicks[*index as usize])));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ClickBlock::decode(&bytes);
    }

    /// Behind the checksum, so that damage is not seen there.
    #[test]
    fn damaged_columns_are_decoded_or_refused(
        clicks in prop::collection::vec(click(), 1..20),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let block = block(&clicks);
        let mut columns = block.columns(&block.rows.iter().collect::<Vec<_>>());
        for (place, byte) in changes {
            let place = place.index(columns.len());
            columns[place] = byte;
        }
        if let Some(end) = end {
            columns.truncate(end.index(columns.len()));
        }
        let _ = read_columns(&mut Reader::new(&columns));
    }

    #[test]
    fn a_flipped_bit_is_seen(clicks in prop::collection::vec(click(), 1..20), place: prop::sample::Index) {
        let block = block(&clicks);
        let mut bytes = block.encode(&(0..clicks.len() as u32).collect::<Vec<_>>());
        let bit = place.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        // Some bits mean nothing, such as those that zstd reserves; none may change an event.
        if let Ok(decoded) = ClickBlock::decode(&bytes) {
            prop_assert!(decoded.iter().eq(clicks));
        }
    }
}

/// Stored blocks are read for ever: the numbers of enum values are their places among all.
#[test]
fn enum_values_have_their_numbers() {
    assert!(Kind::ALL.iter().enumerate().all(|(at, (value, _))| *value as usize == at));
    assert!(Device::ALL.iter().enumerate().all(|(at, (value, _))| *value as usize == at));
    assert!(Purpose::ALL.iter().enumerate().all(|(at, (value, _))| *value as usize == at));
    assert!(Kind::ALL.len() <= 128 && Device::ALL.len() <= 16 && Purpose::ALL.len() <= 16);
}

/// Clicks of one hour as a service of middling size has them: links by a power law, mostly phones.
struct Traffic {
    state: u64,
    agents: Vec<(String, &'static str, &'static str, Device)>,
}

impl Traffic {
    fn new() -> Self {
        let mut agents = Vec::new();
        for version in 0..40 {
            let ios = format!(
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_{version} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                 Version/17.{version} Mobile/15E148 Safari/604.1"
            );
            agents.push((ios, "Safari", "iOS", Device::Mobile));
            let android = format!(
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 \
                 Mobile Safari/537.36",
                90 + version
            );
            agents.push((android, "Chrome", "Android", Device::Mobile));
            let windows = format!(
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 \
                 Safari/537.36",
                90 + version
            );
            agents.push((windows, "Chrome", "Windows", Device::Desktop));
        }
        Traffic { state: 1, agents }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below `len`, the low ones far more often.
    fn skewed(&mut self, len: usize) -> usize {
        let fraction = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        ((len as f64).powf(fraction) - 1.0) as usize
    }

    /// The events of an hour in the order of time, this many.
    fn hour(&mut self, count: u32) -> ClickBlock {
        let mut block = ClickBlock::default();
        let mut offsets = [0_u32; 4];
        for number in 0..count {
            let link = self.skewed(100_000) as u64;
            let agent = self.skewed(self.agents.len());
            let (lane, jitter) = (self.next() as usize % 4, self.next() % (3_600_000 / u64::from(count) + 1));
            let at = 1_900_000_000_000 + u64::from(number) * 3_600_000 / u64::from(count) + jitter;
            offsets[lane] += 180 + (self.next() % 80) as u32;
            let referrer = ["", "https://t.co/", "https://www.facebook.com/", "https://news.example/a/b"]
                [self.skewed(4)];
            let (visitor, country) =
                (self.next(), ["US", "DE", "IN", "BR", "CH", "FR", "JP"][self.skewed(7)]);
            let language = ["en-us", "de-de", "en", "pt-br", "fr"][self.skewed(5)];
            let (user_agent, browser, os, device) = &self.agents[agent];
            block.push(&Click {
                id: ClickId { node: 77, lane: lane as u16, segment: 9, offset: offsets[lane] },
                at: Timestamp::from_millis(at as i64),
                link: LinkId(link),
                domain: DomainId::DEFAULT,
                owner: Some(UserId((link % 1000) as u32)),
                tags: if link.is_multiple_of(5) { "campaign\n" } else { "" },
                visitor: VisitorHash(visitor),
                is_head: false,
                purpose: Purpose::Visit,
                referrer,
                user_agent,
                facts: Facts {
                    kind: Kind::Human,
                    referrer: referrer.split('/').nth(2).unwrap_or(""),
                    country,
                    device: *device,
                    browser,
                    os,
                    language,
                },
            });
        }
        block
    }
}

fn by_link(block: &ClickBlock) -> Vec<u32> {
    let mut indices: Vec<u32> = (0..block.len() as u32).collect();
    indices.sort_by_key(|index| {
        let click = block.get(*index as usize);
        (click.link, click.at, click.id)
    });
    indices
}

#[track_caller]
fn check_size(count: u32, len: usize, bytes_per_event_max: usize) {
    let block = Traffic::new().hour(count);
    let mut bytes = 0;
    for indices in by_link(&block).chunks(len) {
        let encoded = block.encode(indices);
        let decoded = ClickBlock::decode(&encoded).unwrap();
        assert!(decoded.iter().eq(indices.iter().map(|index| block.get(*index as usize))));
        bytes += encoded.len();
    }
    let each = bytes as f64 / f64::from(count);
    eprintln!("{count} events in blocks of {len}: {each:.1} bytes each");
    assert!(bytes <= bytes_per_event_max * count as usize, "{each:.1} bytes an event");
}

#[test]
fn usual_clicks_are_small() {
    check_size(4096 * 16, 4096, 20);
    check_size(4096, 4096, 20);
    check_size(256, 256, 40);
    check_size(10, 10, 150);
}

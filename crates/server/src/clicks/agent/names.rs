//! Names of browsers and operating systems, and kinds of devices: tables, of which the first entry that is found counts.

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use std::sync::LazyLock;
use terse_model::click::Device;

pub(super) struct Names {
    pub device: Device,
    pub browser: &'static str,
    pub os: &'static str,
}

pub(super) fn names(text: &str) -> Names {
    static TABLES: LazyLock<Tables> = LazyLock::new(Tables::new);
    let Found { browser, os, device } = TABLES.find(text);
    let has = |needle: &str| text.contains(needle);
    // An iPad says to be a Mac, unless a website for phones is asked for. Some of its browsers tell nonetheless.
    let is_ipad = os == "macOS"
        && (has(" Mobile/") || has(" CriOS/") || has(" FxiOS/") || has(" EdgiOS/") || has(" GSA/"));
    let os = if is_ipad { "iPadOS" } else { os };
    let browser = match (browser, os) {
        ("Safari", "Android") => "Android Browser",
        ("", "iOS" | "iPadOS") if has("AppleWebKit/") => "iOS WebView",
        _ => browser,
    };
    let device = match (device, os) {
        _ if is_ipad => Device::Tablet,
        (Some(device), _) => device,
        // Browsers of phones say "Mobile". Apps that send an agent of their own making don't.
        (None, "Android") if text.starts_with("Mozilla/") => Device::Tablet,
        (None, "Android" | "HarmonyOS" | "BlackBerry" | "KaiOS") => Device::Mobile,
        (None, "Windows" | "macOS" | "Linux" | "ChromeOS" | "FreeBSD" | "OpenBSD" | "NetBSD") => {
            Device::Desktop
        }
        (None, _) => Device::Unknown,
    };
    Names { device, browser, os }
}

/// Apps first, then browsers that are built on others, then those others.
const BROWSERS: &[(&str, &str)] = &[
    // Apps with a browser inside.
    ("Instagram", "Instagram"),
    ("Barcelona ", "Threads"),
    ("FBAN/Messenger", "Messenger"),
    ("MessengerForiOS", "Messenger"),
    ("MessengerLite", "Messenger"),
    ("FB_IAB/Orca", "Messenger"),
    ("FB_IAB/MESSENGER", "Messenger"),
    ("FBAN/", "Facebook"),
    ("FBAV/", "Facebook"),
    ("FB_IAB/", "Facebook"),
    ("FBIOS", "Facebook"),
    ("MetaIAB Facebook", "Facebook"),
    ("Lark/", "Lark"),
    ("Feishu/", "Lark"),
    ("aweme", "Douyin"),
    ("musical_ly", "TikTok"),
    ("BytedanceWebview", "TikTok"),
    ("ByteLocale", "TikTok"),
    ("ByteFullLocale", "TikTok"),
    ("trill_", "TikTok"),
    ("TikTok", "TikTok"),
    ("wxwork", "WeCom"),
    ("MicroMessenger", "WeChat"),
    ("WindowsWechat", "WeChat"),
    ("Snapchat", "Snapchat"),
    ("Pinterest", "Pinterest"),
    ("LinkedInApp", "LinkedIn"),
    ("Twitter for", "X"),
    ("TwitterAndroid", "X"),
    ("KAKAOTALK", "KakaoTalk"),
    ("KAKAO", "KakaoTalk"),
    ("NAVER(", "Naver"),
    ("DaumApps", "Daum"),
    ("Telegram", "Telegram"),
    ("WhatsApp", "WhatsApp"),
    ("Viber", "Viber"),
    ("Reddit/", "Reddit"),
    ("Weibo", "Weibo"),
    ("AlipayClient", "Alipay"),
    ("DingTalk", "DingTalk"),
    ("baiduboxapp", "Baidu"),
    ("Zalo", "Zalo"),
    ("VKAndroidApp", "VK"),
    ("VKClient", "VK"),
    ("com.vk.", "VK"),
    ("Bluesky", "Bluesky"),
    ("BingSapphire", "Bing"),
    ("GSA/", "Google App"),
    ("Line/", "LINE"),
    ("Slack", "Slack"),
    ("Discord/", "Discord"),
    ("discord/", "Discord"),
    ("Teams/", "Microsoft Teams"),
    ("Thunderbird/", "Thunderbird"),
    (" QQ/", "QQ"),
    // Browsers on the engines of others.
    ("SamsungBrowser", "Samsung Internet"),
    ("EdgiOS/", "Edge"),
    ("EdgA/", "Edge"),
    ("Edg/", "Edge"),
    ("Edge/", "Edge"),
    ("Opera Mini", "Opera Mini"),
    ("OPiOS/", "Opera Mini"),
    ("OPX/", "Opera GX"),
    ("OPRGX/", "Opera GX"),
    ("OPR/", "Opera"),
    ("OPT/", "Opera"),
    ("Opera", "Opera"),
    ("Vivaldi", "Vivaldi"),
    ("Brave", "Brave"),
    ("DuckDuckGo/", "DuckDuckGo"),
    ("Ddg/", "DuckDuckGo"),
    ("YaBrowser/", "Yandex Browser"),
    ("YaSearchBrowser/", "Yandex Browser"),
    ("YaApp_", "Yandex Browser"),
    ("UCBrowser", "UC Browser"),
    ("UCWEB", "UC Browser"),
    ("UBrowser", "UC Browser"),
    ("MQQBrowser", "QQ Browser"),
    ("QQBrowser", "QQ Browser"),
    ("MiuiBrowser", "Mi Browser"),
    ("HuaweiBrowser", "Huawei Browser"),
    ("HBPC/", "Huawei Browser"),
    ("HeyTapBrowser", "HeyTap Browser"),
    ("VivoBrowser", "vivo Browser"),
    ("Silk/", "Silk"),
    ("Silk-Accelerated", "Silk"),
    ("Kindle/", "Kindle"),
    ("Whale/", "Whale"),
    ("Quark/", "Quark"),
    ("MetaSr", "Sogou Explorer"),
    ("SogouMobileBrowser", "Sogou Explorer"),
    ("coc_coc_browser", "Coc Coc"),
    ("Maxthon", "Maxthon"),
    ("MxBrowser", "Maxthon"),
    ("Puffin/", "Puffin"),
    ("Ecosia", "Ecosia"),
    ("AlohaBrowser", "Aloha"),
    ("Avast/", "Avast Browser"),
    ("Iron/", "Iron"),
    ("OculusBrowser", "Meta Quest Browser"),
    ("NintendoBrowser", "Nintendo Browser"),
    (" NX/", "Nintendo Browser"),
    ("NetFront", "NetFront"),
    ("PlayStation", "PlayStation Browser"),
    ("PLAYSTATION", "PlayStation Browser"),
    ("Epiphany/", "GNOME Web"),
    ("Falkon/", "Falkon"),
    ("Konqueror/", "Konqueror"),
    ("Electron/", "Electron"),
    ("HeadlessChrome", "Headless Chrome"),
    ("ArkWeb/", "HarmonyOS WebView"),
    // Firefox and its kin.
    ("Focus/", "Firefox Focus"),
    ("Klar/", "Firefox Focus"),
    ("SeaMonkey/", "SeaMonkey"),
    ("PaleMoon/", "Pale Moon"),
    ("Waterfox/", "Waterfox"),
    ("FxiOS/", "Firefox"),
    ("Firefox/", "Firefox"),
    // What is left.
    ("IEMobile", "Internet Explorer"),
    ("Trident/", "Internet Explorer"),
    ("MSIE ", "Internet Explorer"),
    ("; wv)", "Android WebView"),
    ("CriOS/", "Chrome"),
    ("Chromium/", "Chromium"),
    ("Chrome/", "Chrome"),
    ("BB10", "BlackBerry Browser"),
    ("BlackBerry", "BlackBerry Browser"),
    ("NokiaBrowser", "Nokia Browser"),
    ("Web0S", "webOS Browser"),
    ("SMART-TV", "Smart TV"),
    ("Safari/", "Safari"),
];

const SYSTEMS: &[(&str, &str)] = &[
    // Their agents name others as well, to be taken for them.
    ("Windows Phone", "Windows Phone"),
    ("Xbox", "Xbox"),
    ("PlayStation", "PlayStation"),
    ("PLAYSTATION", "PlayStation"),
    ("Nintendo", "Nintendo"),
    ("HarmonyOS", "HarmonyOS"),
    ("OpenHarmony", "HarmonyOS"),
    ("KAIOS", "KaiOS"),
    ("KaiOS", "KaiOS"),
    ("Tizen", "Tizen"),
    ("Web0S", "webOS"),
    ("webOS", "webOS"),
    ("hpwOS", "webOS"),
    ("Roku", "Roku"),
    ("AppleTV", "tvOS"),
    ("Apple TV", "tvOS"),
    ("VIDAA", "VIDAA"),
    ("Kindle/", "Kindle"),
    ("iPad", "iPadOS"),
    ("iPhone", "iOS"),
    ("iPod", "iOS"),
    ("Android", "Android"),
    ("; Adr ", "Android"),
    ("CrOS", "ChromeOS"),
    ("BlackBerry", "BlackBerry"),
    ("BB10", "BlackBerry"),
    ("PlayBook", "BlackBerry"),
    ("Symbian", "Symbian"),
    ("SymbOS", "Symbian"),
    ("Series60", "Symbian"),
    ("Windows", "Windows"),
    ("Macintosh", "macOS"),
    ("Mac OS X", "macOS"),
    ("Mac_PowerPC", "macOS"),
    ("FreeBSD", "FreeBSD"),
    ("OpenBSD", "OpenBSD"),
    ("NetBSD", "NetBSD"),
    ("Linux", "Linux"),
    ("X11", "Linux"),
];

const DEVICES: &[(&str, Device)] = &[
    ("PlayStation", Device::Console),
    ("PLAYSTATION", Device::Console),
    ("Nintendo", Device::Console),
    ("Xbox", Device::Console),
    ("SMART-TV", Device::Tv),
    ("SmartTV", Device::Tv),
    ("Smart-TV", Device::Tv),
    ("Smart TV", Device::Tv),
    ("SmartHub", Device::Tv),
    ("HbbTV", Device::Tv),
    ("GoogleTV", Device::Tv),
    ("Google TV", Device::Tv),
    ("Android TV", Device::Tv),
    ("AndroidTV", Device::Tv),
    ("AppleTV", Device::Tv),
    ("Apple TV", Device::Tv),
    ("NetCast", Device::Tv),
    ("NETTV", Device::Tv),
    ("Web0S", Device::Tv),
    ("webOS.TV", Device::Tv),
    ("BRAVIA", Device::Tv),
    ("Viera", Device::Tv),
    ("VIDAA", Device::Tv),
    ("Roku", Device::Tv),
    ("CrKey", Device::Tv),
    ("Chromecast", Device::Tv),
    ("MiTV", Device::Tv),
    ("MIBOX", Device::Tv),
    ("InettvBrowser", Device::Tv),
    ("Opera TV", Device::Tv),
    // Amazon's boxes and sticks.
    ("; AFT", Device::Tv),
    // A computer, by Internet Explorer.
    ("Tablet PC", Device::Desktop),
    ("(PC;", Device::Desktop),
    ("iPad", Device::Tablet),
    ("Tablet", Device::Tablet),
    ("tablet", Device::Tablet),
    ("PlayBook", Device::Tablet),
    ("Kindle/", Device::Tablet),
    ("TouchPad", Device::Tablet),
    ("Nexus 7", Device::Tablet),
    ("Nexus 9", Device::Tablet),
    ("Nexus 10", Device::Tablet),
    ("Pixel C ", Device::Tablet),
    // Tablets of Samsung, Amazon and Lenovo, whose apps may say "Mobile" too.
    ("; SM-T", Device::Tablet),
    ("; SM-X", Device::Tablet),
    ("; SM-P", Device::Tablet),
    ("; KF", Device::Tablet),
    ("Lenovo TB", Device::Tablet),
    ("iPhone", Device::Mobile),
    ("iPod", Device::Mobile),
    ("Windows Phone", Device::Mobile),
    ("Mobile", Device::Mobile),
    ("Opera Mini", Device::Mobile),
    ("Opera Mobi", Device::Mobile),
    ("UCWEB", Device::Mobile),
    ("(Phone", Device::Mobile),
    ("BlackBerry", Device::Mobile),
    ("Symbian", Device::Mobile),
    ("SymbOS", Device::Mobile),
    ("Series60", Device::Mobile),
    ("MIDP", Device::Mobile),
    ("J2ME", Device::Mobile),
    ("KAIOS", Device::Mobile),
];

struct Found {
    browser: &'static str,
    os: &'static str,
    device: Option<Device>,
}

/// The tables in one automaton, so that a text is read once.
struct Tables {
    automaton: AhoCorasick,
}

impl Tables {
    fn new() -> Self {
        let needles = BROWSERS.iter().chain(SYSTEMS).map(|(needle, _)| needle);
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::DFA))
            .build(needles.chain(DEVICES.iter().map(|(needle, _)| needle)))
            .expect("few and short");
        Tables { automaton }
    }

    fn find(&self, text: &str) -> Found {
        let (mut browser, mut os, mut device) = (BROWSERS.len(), SYSTEMS.len(), DEVICES.len());
        for found in self.automaton.find_overlapping_iter(text) {
            let number = found.pattern().as_usize();
            if let Some(number) = number.checked_sub(BROWSERS.len() + SYSTEMS.len()) {
                device = device.min(number);
            } else if let Some(number) = number.checked_sub(BROWSERS.len()) {
                os = os.min(number);
            } else {
                browser = browser.min(number);
            }
        }
        let name =
            |table: &'static [(&str, &str)], number: usize| table.get(number).map_or("", |(_, name)| name);
        Found {
            browser: name(BROWSERS, browser),
            os: name(SYSTEMS, os),
            device: DEVICES.get(device).map(|(_, device)| *device),
        }
    }
}

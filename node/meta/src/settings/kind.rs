//! What values may be, and their canonical spelling.

use serde_json::{Value, json};

/// The type of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`; AIStore's other spellings are understood.
    Bool,
    /// A number.
    U64 {
        /// At least.
        min: u64,
        /// At most.
        max: u64,
    },
    /// A number with a sign.
    I64 {
        /// At least.
        min: i64,
        /// At most.
        max: i64,
    },
    /// Flags: any of these bits, or all 64. Decimal or `0x`; a string in JSON.
    Bits(u64),
    /// Go's spelling of a duration, whole milliseconds.
    Duration {
        /// At least.
        min_ms: u64,
        /// At most.
        max_ms: u64,
    },
    /// Bytes: a number, alone or with KiB, MiB, GiB, TiB (or KB, MB, GB, TB of 1000).
    Size {
        /// At least.
        min: u64,
        /// At most.
        max: u64,
    },
    /// One of these words.
    Enum(&'static [&'static str]),
    /// Printable text.
    Text {
        /// Bytes at most.
        max: usize,
    },
    /// Words without commas, separated by commas; a JSON array is understood.
    List {
        /// Words at most.
        items: usize,
        /// Bytes of a word at most.
        max: usize,
    },
}

const UNITS_NS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
const IEC: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Kind {
    /// The canonical spelling.
    ///
    /// # Errors
    /// What was expected.
    pub fn canonical(self, text: &str) -> Result<String, String> {
        let text = text.trim();
        match self {
            Self::Bool => switch(text).map(|on| on.to_string()),
            Self::U64 { min, max } => {
                let n = text.parse::<u64>().ok().filter(|n| (min..=max).contains(n));
                n.map(|n| n.to_string()).ok_or_else(|| format!("expected a number from {min} to {max}"))
            }
            Self::I64 { min, max } => {
                let n = text.parse::<i64>().ok().filter(|n| (min..=max).contains(n));
                n.map(|n| n.to_string()).ok_or_else(|| format!("expected a number from {min} to {max}"))
            }
            Self::Bits(known) => bits(text, known),
            Self::Duration { min_ms, max_ms } => {
                let ms = duration_ms(text).ok_or("expected a duration like 10s or 1m30s, in whole milliseconds")?;
                let range = || format!("expected {} to {}", duration(min_ms), duration(max_ms));
                if (min_ms..=max_ms).contains(&ms) { Ok(duration(ms)) } else { Err(range()) }
            }
            Self::Size { min, max } => {
                let bytes = size_bytes(text).ok_or("expected a size like 64MiB")?;
                let range = || format!("expected {} to {}", size(min), size(max));
                if (min..=max).contains(&bytes) { Ok(size(bytes)) } else { Err(range()) }
            }
            Self::Enum(words) => {
                let word = words.iter().find(|w| w.eq_ignore_ascii_case(text));
                word.map(|w| (*w).to_owned()).ok_or_else(|| format!("expected one of: {}", words.join(", ")))
            }
            Self::Text { max } => printable(text, max),
            Self::List { items, max } => list(text, items, max),
        }
    }

    /// A canonical value as AIStore's JSON has it.
    #[must_use]
    pub fn json(self, value: &str) -> Value {
        match self {
            Self::Bool => json!(value == "true"),
            Self::U64 { .. } => value.parse::<u64>().map_or_else(|_| json!(value), |n| json!(n)),
            Self::I64 { .. } => value.parse::<i64>().map_or_else(|_| json!(value), |n| json!(n)),
            Self::List { .. } => value.split(',').filter(|word| !word.is_empty()).collect(),
            Self::Bits(_) | Self::Duration { .. } | Self::Size { .. } | Self::Enum(_) | Self::Text { .. } => {
                json!(value)
            }
        }
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" | "y" | "yes" | "on" => Ok(true),
        "false" | "0" | "f" | "n" | "no" | "off" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

fn bits(text: &str, known: u64) -> Result<String, String> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let parsed = hex.map_or_else(|| text.parse::<u64>().ok(), |digits| u64::from_str_radix(digits, 16).ok());
    let bits = parsed.ok_or("expected flags as a decimal or 0x number")?;
    if bits != u64::MAX && bits & !known != 0 {
        return Err(format!("bits {:#x} mean nothing; known are {known:#x}", bits & !known));
    }
    Ok(bits.to_string())
}

/// Go's durations: numbers with units, one after the other.
fn duration_ms(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut total_ns) = (text, 0u128);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let unit_ns = UNITS_NS.iter().find(|(name, _)| *name == unit).map(|(_, ns)| *ns)?;
        total_ns = total_ns.checked_add(scaled(number, unit_ns)?)?;
        rest = next;
    }
    let whole = !text.is_empty() && total_ns.is_multiple_of(1_000_000);
    whole.then_some(total_ns / 1_000_000).and_then(|ms| u64::try_from(ms).ok())
}

/// `number` (decimal, with or without a fraction) times `unit`, exactly.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 12 {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let power = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = digits(fraction)?.checked_mul(unit)?;
    let exact = part.is_multiple_of(power);
    exact.then_some(digits(whole)?.checked_mul(unit)?.checked_add(part / power)?)
}

/// As AIStore prints it: no zero parts, fractions of seconds.
fn duration(ms: u64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (whole, fraction) = (ms / 1000 % 60, ms % 1000);
    let seconds = format!("{whole}.{fraction:03}");
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    let parts = [(ms / 3_600_000, "h"), (ms / 60_000 % 60, "m")];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if ms.is_multiple_of(60_000) { text } else { format!("{text}{seconds}s") }
}

fn size_bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim().to_ascii_lowercase();
    let scale: u64 = match unit.as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    scaled(number, u128::from(scale)).and_then(|bytes| u64::try_from(bytes).ok())
}

/// The largest unit that leaves no fraction.
fn size(bytes: u64) -> String {
    let unit = IEC.iter().find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale));
    unit.map_or_else(|| format!("{bytes}B"), |(name, scale)| format!("{}{name}", bytes / scale))
}

fn printable(text: &str, max: usize) -> Result<String, String> {
    if text.len() > max {
        return Err(format!("expected at most {max} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("expected printable text".to_owned());
    }
    Ok(text.to_owned())
}

fn list(text: &str, items: usize, max: usize) -> Result<String, String> {
    let words: Vec<String> = match serde_json::from_str::<Vec<String>>(text) {
        Ok(words) => words,
        Err(_) => text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect(),
    };
    if words.len() > items {
        return Err(format!("expected at most {items} words"));
    }
    for word in &words {
        printable(word, max)?;
        if word.is_empty() || word.contains(',') {
            return Err("expected words without commas".to_owned());
        }
    }
    Ok(words.join(","))
}

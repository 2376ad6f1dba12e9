//! The kept corpus as text: inputs of all targets are small, and a reviewer can read what they are about.

/// One input as a line without a line break.
#[must_use]
pub fn escape(input: &[u8]) -> String {
    input.escape_ascii().to_string()
}

/// The input that a line stands for; `None` if [`escape`] does not write such a line.
#[must_use]
pub fn unescape(line: &str) -> Option<Vec<u8>> {
    let mut input = Vec::with_capacity(line.len());
    let mut rest = line.bytes();
    while let Some(byte) = rest.next() {
        input.push(match byte {
            b'\\' => match rest.next()? {
                b't' => b'\t',
                b'r' => b'\r',
                b'n' => b'\n',
                b'x' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                plain @ (b'\'' | b'"' | b'\\') => plain,
                _ => return None,
            },
            plain => plain,
        });
    }
    Some(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives() {
        let all: Vec<u8> = (0..=255).collect();
        let line = escape(&all);
        assert!(!line.contains('\n'));
        assert_eq!(unescape(&line), Some(all));
        for bad in ["\\", "\\x1", "\\xzz", "\\q"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }
}

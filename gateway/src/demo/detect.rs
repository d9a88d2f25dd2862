//! Finds card numbers (ISO/IEC 7812, Luhn-checked) and US social security numbers in texts.

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detector {
    CardNumber,
    SocialSecurityNumber,
}

impl Detector {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CardNumber => "CREDIT_CARD_NUMBER",
            Self::SocialSecurityNumber => "US_SOCIAL_SECURITY_NUMBER",
        }
    }
}

/// Where, in bytes of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) detector: Detector,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// All findings, in order, none within another.
pub(super) fn findings(text: &str) -> Vec<Finding> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let starts = bytes[at].is_ascii_digit() && (at == 0 || !bytes[at - 1].is_ascii_alphanumeric());
        let hit = if starts {
            let card = card_end(bytes, at).map(|end| (Detector::CardNumber, end));
            card.or_else(|| ssn_end(bytes, at).map(|end| (Detector::SocialSecurityNumber, end)))
        } else {
            None
        };
        match hit {
            Some((detector, end)) => {
                found.push(Finding { detector, start: at, end });
                at = end;
            }
            None => at += 1,
        }
    }
    found
}

/// The text with each finding's detector in its place.
pub(super) fn redact(text: &str, findings: &[Finding]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for finding in findings {
        out.push_str(&text[at..finding.start]);
        out.push('[');
        out.push_str(finding.detector.name());
        out.push(']');
        at = finding.end;
    }
    out.push_str(&text[at..]);
    out
}

/// The last four digits stay.
pub(super) fn mask(number: &str) -> String {
    let digits = number.chars().filter(char::is_ascii_digit).count();
    let mut seen = 0;
    number
        .chars()
        .map(|c| {
            if !c.is_ascii_digit() {
                return c;
            }
            seen += 1;
            if seen + 4 > digits { c } else { '*' }
        })
        .collect()
}

/// Where a card number that starts here ends: 13 to 19 digits, in groups apart by single blanks or hyphens; the longest.
fn card_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut digits = Vec::with_capacity(19);
    let mut best = None;
    let mut at = start;
    while digits.len() < 19 {
        match bytes.get(at) {
            Some(byte) if byte.is_ascii_digit() => digits.push(byte - b'0'),
            Some(b' ' | b'-') if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => {}
            _ => break,
        }
        at += 1;
        let ends = !bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
        if bytes[at - 1].is_ascii_digit() && digits.len() >= 13 && ends && is_card(&digits) {
            best = Some(at);
        }
    }
    best
}

/// Known first digits and a Luhn sum that fits.
fn is_card(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(*digit);
            match place % 2 {
                0 => digit,
                _ if digit > 4 => digit * 2 - 9,
                _ => digit * 2,
            }
        })
        .sum();
    (2..=6).contains(&digits[0]) && sum.is_multiple_of(10)
}

/// `AAA-GG-SSSS`, without the areas, groups and serials that are never given out.
fn ssn_end(bytes: &[u8], start: usize) -> Option<usize> {
    let text = bytes.get(start..start + 11)?;
    let separator = text[3];
    let shape = text.iter().enumerate().all(|(i, byte)| match i {
        3 | 6 => *byte == separator && matches!(byte, b'-' | b' '),
        _ => byte.is_ascii_digit(),
    });
    let free = !bytes.get(start + 11).is_some_and(|next| next.is_ascii_alphanumeric() || *next == b'-');
    let real = &text[..3] != b"000" && &text[..3] != b"666" && text[0] != b'9' && &text[4..6] != b"00" && &text[7..] != b"0000";
    (shape && free && real).then_some(start + 11)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&'static str, &str)> {
        findings(text).iter().map(|finding| (finding.detector.name(), &text[finding.start..finding.end])).collect()
    }

    #[test]
    fn card_numbers_are_found_in_their_usual_spellings() {
        for card in ["4111111111111111", "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "6011 0009 9013 9424"] {
            let text = format!("pay with {card}, please");
            assert_eq!(found(&text), [("CREDIT_CARD_NUMBER", card)]);
        }
    }

    #[test]
    fn numbers_that_are_no_cards_are_left_alone() {
        for text in ["4111111111111112", "41111111111111111111111", "x4111111111111111", "4111  1111  1111  1111", "0000000000000000", ""] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn social_security_numbers_are_found_and_impossible_ones_are_not() {
        assert_eq!(found("ssn: 536-90-4399."), [("US_SOCIAL_SECURITY_NUMBER", "536-90-4399")]);
        for text in ["000-12-3456", "666-12-3456", "900-12-3456", "536-00-4399", "536-90-0000", "536-90-43991", "536-90 4399", "1536-90-4399"] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn several_are_found_in_order_and_blacked_out() {
        let text = "4111111111111111 and 536-90-4399 and 4111111111111111";
        let all = findings(text);
        assert_eq!(all.len(), 3);
        assert_eq!(redact(text, &all), "[CREDIT_CARD_NUMBER] and [US_SOCIAL_SECURITY_NUMBER] and [CREDIT_CARD_NUMBER]");
        assert_eq!(mask("536-90-4399"), "***-**-4399");
    }
}

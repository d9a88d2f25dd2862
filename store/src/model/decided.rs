//! What policies said of a request, as its row keeps it: one text, so that equal ones are kept once a block.
//!
//! Only rows that a policy refused, or a shadow would have, have one; so a request that was let through costs nothing here.
//! Its form is drawn in `store/README.md` and grows at its end: a reader leaves out what it does not know.

use super::{Name, Timestamp, Unit};

/// One policy's part in a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The policy's name.
    pub policy: Name,
    /// What it said then: `5/s burst 15`, `10000/day`, `20`; empty when it was gone already.
    pub setting: Name,
    /// What it did.
    pub part: Part,
    /// Its numbers at that instant; none in rows of builds before they were kept, and in rows that stand for many.
    pub numbers: Option<Numbers>,
}

/// What a policy did in a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It refused.
    Refused,
    /// A shadow: it would have refused.
    WouldRefuse,
    /// It stood beside one that refused, and did not.
    Passed,
}

/// Who set a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The tier.
    Tier,
    /// An override of the account.
    Account,
    /// An override of the key.
    Key,
}

/// Which kind of policy, and what it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Requests, by a rate.
    Rate,
    /// Units of a period.
    Quota(Unit),
    /// Requests at once.
    Concurrency,
}

/// A policy's numbers at the instant of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// What it counts.
    pub counted: Counted,
    /// Who had set it.
    pub source: Source,
    /// The burst of a rate, the units of a period, the requests at once.
    pub limit: u64,
    /// Units that could be taken; none where nobody was asked.
    pub remaining: Option<u64>,
    /// Units that the request would have taken; none where the row itself tells.
    pub needed: Option<u64>,
    /// When a quota's period ends.
    pub resets_at: Option<Timestamp>,
}

impl Counted {
    /// `rate`, `quota` or `concurrency`.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Quota(_) => "quota",
            Self::Concurrency => "concurrency",
        }
    }

    /// `requests`, `content-bytes`, `cost` or `concurrent-requests`.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Rate => Unit::Requests.as_str(),
            Self::Quota(unit) => unit.as_str(),
            Self::Concurrency => "concurrent-requests",
        }
    }
}

/// Letters of the stored form. Frozen.
const COUNTED: [(char, Counted); 5] = [
    ('r', Counted::Rate),
    ('q', Counted::Quota(Unit::Requests)),
    ('b', Counted::Quota(Unit::ContentBytes)),
    ('u', Counted::Quota(Unit::Cost)),
    ('c', Counted::Concurrency),
];
/// As above.
const SOURCES: [(char, Source); 3] = [('t', Source::Tier), ('a', Source::Account), ('k', Source::Key)];
/// As above. One that refused has none.
const PARTS: [(char, Part); 2] = [('~', Part::WouldRefuse), ('+', Part::Passed)];

/// A number that is not known.
const UNKNOWN: &str = "-";

impl Decided {
    /// Most bytes that a row keeps; policies beyond are left out, so those that refused come first.
    const MAX_BYTES: usize = 1_024;

    /// What a row keeps of several.
    pub fn text(all: impl IntoIterator<Item = Self>) -> Name {
        let mut text = String::new();
        for decided in all {
            let (before, between) = (text.len(), if text.is_empty() { "" } else { ", " });
            text.push_str(between);
            decided.put(&mut text);
            if text.len() > Self::MAX_BYTES {
                text.truncate(before);
                break;
            }
        }
        text.into()
    }

    fn put(&self, text: &mut String) {
        text.extend(PARTS.iter().find(|(_, part)| *part == self.part).map(|(mark, _)| mark));
        text.push_str(&self.policy);
        text.push('=');
        text.push_str(&self.setting);
        if let Some(numbers) = &self.numbers {
            numbers.put(text);
        }
    }

    /// Reads what a row keeps.
    pub fn read(text: &str) -> Vec<Self> {
        text.split(", ").filter(|item| !item.is_empty()).map(Self::read_one).collect()
    }

    fn read_one(item: &str) -> Self {
        let marked = PARTS.iter().find_map(|(mark, part)| Some((*part, item.strip_prefix(*mark)?)));
        let (part, item) = marked.unwrap_or((Part::Refused, item));
        let (policy, said) = item.split_once('=').unwrap_or((item, ""));
        let (setting, numbers) =
            said.split_once('|').map_or((said, None), |(setting, numbers)| (setting, Numbers::read(numbers)));
        Self { policy: policy.into(), setting: setting.into(), part, numbers }
    }
}

impl Numbers {
    fn put(&self, text: &mut String) {
        text.push('|');
        text.extend(COUNTED.iter().find(|(_, counted)| *counted == self.counted).map(|(letter, _)| letter));
        text.extend(SOURCES.iter().find(|(_, source)| *source == self.source).map(|(letter, _)| letter));
        let resets_at = self.resets_at.map(|at| at.unix_seconds().cast_unsigned());
        for number in [Some(self.limit), self.remaining, self.needed, resets_at] {
            text.push(' ');
            text.push_str(&number.map_or_else(|| UNKNOWN.to_owned(), |number| number.to_string()));
        }
    }

    fn read(text: &str) -> Option<Self> {
        let mut fields = text.split(' ');
        let mut letters = fields.next()?.chars();
        let counted = letters.next().and_then(|letter| COUNTED.iter().find(|(known, _)| *known == letter))?.1;
        let source = letters.next().and_then(|letter| SOURCES.iter().find(|(known, _)| *known == letter))?.1;
        let mut number = || fields.next().and_then(|number| number.parse::<u64>().ok());
        Some(Self {
            counted,
            source,
            limit: number()?,
            remaining: number(),
            needed: number(),
            resets_at: number().and_then(|seconds| i64::try_from(seconds).ok()).map(Timestamp::from_unix_seconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(policy: &str, setting: &str, part: Part, numbers: Option<Numbers>) -> Decided {
        Decided { policy: policy.into(), setting: setting.into(), part, numbers }
    }

    fn numbers(counted: Counted, source: Source, limit: u64, remaining: Option<u64>, needed: Option<u64>) -> Numbers {
        Numbers { counted, source, limit, remaining, needed, resets_at: None }
    }

    fn refused() -> Vec<Decided> {
        let rate = numbers(Counted::Rate, Source::Account, 15, Some(0), Some(1));
        let shadow = numbers(Counted::Quota(Unit::Cost), Source::Key, 70, Some(0), None);
        let bytes = numbers(Counted::Quota(Unit::ContentBytes), Source::Tier, 5_000, None, Some(u64::MAX));
        let daily = numbers(Counted::Quota(Unit::Requests), Source::Tier, 10_000, Some(9_812), Some(1));
        vec![
            of("per-second", "5/s burst 15", Part::Refused, Some(rate)),
            of("costs", "70 cost/month", Part::WouldRefuse, Some(shadow)),
            of("bytes", "5000 content-bytes/hour", Part::Passed, Some(bytes)),
            of(
                "daily",
                "10000/day",
                Part::Passed,
                Some(Numbers { resets_at: Some(Timestamp(1_790_035_200_000_000)), ..daily }),
            ),
            of(
                "concurrency",
                "20",
                Part::Passed,
                Some(numbers(Counted::Concurrency, Source::Tier, 20, Some(7), Some(1))),
            ),
        ]
    }

    /// Frozen by hand-off to disks: these texts are read for ever.
    const REFUSED: &str = "per-second=5/s burst 15|ra 15 0 1 -, ~costs=70 cost/month|uk 70 0 - -, \
                           +bytes=5000 content-bytes/hour|bt 5000 - 18446744073709551615 -, \
                           +daily=10000/day|qt 10000 9812 1 1790035200, +concurrency=20|ct 20 7 1 -";
    /// As builds wrote it that kept no numbers.
    const FIRST: &str = "per-second=5/s burst 15, ~daily=10000/day";

    #[test]
    fn what_decided_reads_back_with_its_numbers() {
        assert_eq!(Decided::text(refused()).as_str(), REFUSED);
        assert_eq!(Decided::read(REFUSED), refused());
        let first = vec![
            of("per-second", "5/s burst 15", Part::Refused, None),
            of("daily", "10000/day", Part::WouldRefuse, None),
        ];
        assert_eq!((Decided::text(first.clone()).as_str(), Decided::read(FIRST)), (FIRST, first));
        assert_eq!((Decided::text([]).as_str(), Decided::read("")), ("", Vec::new()));
    }

    #[test]
    fn what_a_newer_build_says_beyond_is_left_out_and_nonsense_is_no_number() {
        let read = |text| Decided::read(text).remove(0);
        assert_eq!(read("per-second=5/s burst 15|ra 15 0 1 - 77 x"), refused().remove(0));
        for text in ["a=1|", "a=1|zz 1 2", "a=1|r", "a=1|ra x", "a=1|ra 18446744073709551616"] {
            assert_eq!(read(text), of("a", "1", Part::Refused, None), "{text}");
        }
        let never = read("a=1|qt 1 1 1 18446744073709551615");
        assert_eq!(never.numbers.map(|numbers| numbers.resets_at), Some(None));
    }

    #[test]
    fn those_that_do_not_fit_are_left_out_whole() {
        let many = (0..200).map(|n| of(&format!("policy-{n}"), "5/s burst 15", Part::Refused, refused()[0].numbers));
        let text = Decided::text(many);
        let kept = Decided::read(&text);
        assert!(text.len() <= Decided::MAX_BYTES && (10..200).contains(&kept.len()), "{}", text.len());
        assert!(kept.iter().all(|one| one.numbers == refused()[0].numbers));
    }
}

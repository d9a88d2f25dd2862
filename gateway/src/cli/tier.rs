//! `tollgate tier`

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use store::model::Rate;

use super::{
    client::segment,
    failure::{Failure, Result},
    named::{Change, Form, Kind, Verb, set},
    output::{Column, Format},
    remote::Remote,
};

const KIND: Kind = Kind {
    path: "/v1/tiers",
    noun: "tier",
    columns: &[
        ("name", "/name"),
        ("limits", "/limits"),
        ("quotas", "/quotas"),
        ("concurrency", "/concurrency"),
        ("max body", "/max_body_bytes"),
        ("revision", "/revision"),
    ],
};

/// `tier`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate tier create small --rate 5/s --burst 15 --quota 1000/day
  tollgate tier set small --concurrency 20
  tollgate tier preview small --rate 2/s
  tollgate tier get small -o yaml")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: TierVerb,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one a process")]
enum TierVerb {
    #[command(flatten)]
    Common(Verb<Flags>),
    /// Tells how many of the last days' requests of its accounts it would have refused; with flags or -f, as it would then be
    Preview {
        /// Days to look back
        #[arg(long, value_name = "DAYS", default_value = "7", value_parser = clap::value_parser!(u8).range(1..=7))]
        days: u8,
        #[command(flatten)]
        change: Box<Change<Flags>>,
    },
}

const PREVIEW: &[Column] = &[
    ("account", "/account"),
    ("requests", "/requests"),
    ("refused", "/refused"),
    ("would be refused", "/would_be_refused"),
    ("by policy", "/by_policy"),
    ("by shadow", "/by_shadow"),
];

#[derive(Debug, Args)]
struct Flags {
    /// Sustained rate, like 5/s, 300/m, 1000/h or 100/d
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// How many may come at once; a period's units for a new rate when not said
    #[arg(long, value_name = "COUNT")]
    burst: Option<u64>,
    /// What the rate counts apart
    #[arg(long, value_name = "WHAT,...", value_delimiter = ',')]
    per: Vec<Per>,
    /// Calendar quota of requests, like 10000/day or 1000000/month; may be given more than once
    #[arg(long, value_name = "LIMIT/PERIOD")]
    quota: Vec<Quota>,
    /// Timezone of the quotas given here
    #[arg(long, value_name = "IANA NAME", requires = "quota")]
    timezone: Option<String>,
    /// What happens above the quotas given here
    #[arg(long, value_parser = ["block", "allow"], requires = "quota")]
    overage: Option<String>,
    /// Day that the weeks (1 Monday to 7 Sunday) or months of the quotas given here begin on
    #[arg(long, value_name = "DAY", requires = "quota")]
    anchor_day: Option<u8>,
    /// Percentages of the quotas given here that raise an alert; 80 and 100 when not said
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', requires = "quota")]
    thresholds: Option<Vec<u16>>,
    /// Whether the rate and quotas given here only tell what they would refuse
    #[arg(long, value_name = "WHETHER", num_args = 0..=1, default_missing_value = "true")]
    shadow: Option<bool>,
    /// Requests at once of an account
    #[arg(long, value_name = "COUNT")]
    concurrency: Option<u32>,
    /// Largest request body in bytes
    #[arg(long, value_name = "BYTES")]
    max_body_bytes: Option<u64>,
    /// Routes that the tier's accounts may use
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    routes: Option<Vec<String>>,
    /// Days that request rows are kept
    #[arg(long, value_name = "DAYS")]
    log_retention_days: Option<u16>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Per {
    Account,
    Key,
    Route,
}

/// `10000/day`
#[derive(Debug, Clone)]
struct Quota {
    limit: u64,
    period: &'static str,
    name: &'static str,
}

impl std::str::FromStr for Quota {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let form = || format!("{text:?} is not a quota: expected one like 10000/day (hour, day, week or month)");
        let (limit, period) = text.split_once('/').ok_or_else(form)?;
        let (period, name) = [("hour", "hourly"), ("day", "daily"), ("week", "weekly"), ("month", "monthly")]
            .into_iter()
            .find(|(known, _)| *known == period)
            .ok_or_else(form)?;
        Ok(Self { limit: limit.parse().map_err(|_| form())?, period, name })
    }
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let (client, format) = (self.remote.client()?, self.remote.output);
        let (days, change) = match self.verb {
            TierVerb::Common(verb) => return KIND.run(verb, &client, format),
            TierVerb::Preview { days, change } => (days, change),
        };
        let path = format!("/v1/tiers/{}", segment(change.name()));
        let before = client.read(&path)?.body;
        let body = change.over(before.clone())?;
        let path = format!("{path}/preview?days={days}");
        let preview = if body == before { client.read(&path)?.body } else { client.post(&path, &body)?.body };
        if preview["complete"] != true {
            eprintln!("there are more rows than one preview looks at: it covers the time since {}", preview["since"]);
        }
        match format {
            Format::Table => {
                let mut lines = preview["accounts"].as_array().cloned().unwrap_or_default();
                let mut all = preview.clone();
                all["account"] = "(all)".into();
                lines.push(all);
                format.list(&json!({ "data": lines, "next_cursor": null }), PREVIEW)
            }
            _ => format.object(&preview),
        }
    }
}

impl Form for Flags {
    fn lay(&self, over: &mut Value) -> Result<()> {
        if let Some(limit) = self.limit(over)? {
            replace(over, "limits", limit)?;
        }
        for quota in &self.quota {
            let mut object = json!({ "name": quota.name, "limit": quota.limit, "period": quota.period });
            set(&mut object, "timezone", self.timezone.clone());
            set(&mut object, "overage", self.overage.clone());
            set(&mut object, "anchor_day", self.anchor_day);
            set(&mut object, "thresholds", self.thresholds.clone());
            set(&mut object, "shadow", self.shadow);
            replace(over, "quotas", object)?;
        }
        set(over, "concurrency", self.concurrency);
        set(over, "max_body_bytes", self.max_body_bytes);
        set(over, "routes", self.routes.clone());
        set(over, "log_retention_days", self.log_retention_days);
        Ok(())
    }
}

impl Flags {
    /// The rate limit that the flags speak of: the one of the rate's period, else the only one that there is.
    fn limit(&self, over: &Value) -> Result<Option<Value>> {
        let mut limit = match (self.rate, over["limits"].as_array().map(Vec::as_slice)) {
            (Some(rate), _) => {
                let name = match rate.period_seconds {
                    1 => "per-second",
                    60 => "per-minute",
                    3_600 => "per-hour",
                    _ => "per-day",
                };
                json!({ "name": name, "rate": rate, "burst": self.burst.unwrap_or(rate.units) })
            }
            (None, _) if self.burst.is_none() && self.per.is_empty() => return Ok(None),
            (None, Some([only])) => json!({ "name": only["name"] }),
            (None, _) => return Err(Failure::Usage("--burst and --per change a limit: say which with --rate".into())),
        };
        set(&mut limit, "burst", self.burst);
        set(&mut limit, "shadow", self.shadow);
        if !self.per.is_empty() {
            limit["per"] = self
                .per
                .iter()
                .map(|per| match per {
                    Per::Account => "account",
                    Per::Key => "key",
                    Per::Route => "route",
                })
                .collect();
        }
        Ok(Some(limit))
    }
}

/// Puts a policy in the place of the one of its name, or at the end.
fn replace(over: &mut Value, list: &str, policy: Value) -> Result<()> {
    let wrong = || Failure::Usage(format!("the file's {list} is not a list"));
    let map = over.as_object_mut().ok_or_else(wrong)?;
    let policies = map.entry(list).or_insert_with(|| json!([])).as_array_mut().ok_or_else(wrong)?;
    match policies.iter_mut().find(|other| other["name"] == policy["name"]) {
        Some(other) => {
            for (key, value) in policy.as_object().into_iter().flatten() {
                other[key] = value.clone();
            }
        }
        None => policies.push(policy),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Wrapper {
        #[command(flatten)]
        flags: Flags,
    }

    fn laid(args: &[&str], mut over: Value) -> Value {
        let flags = Wrapper::try_parse_from([&["x"], args].concat()).expect("flags").flags;
        flags.lay(&mut over).expect("laid");
        over
    }

    #[test]
    fn flags_make_a_tier() {
        assert_eq!(
            laid(&["--rate=5/s", "--burst=15", "--per=key,route", "--quota=10000/day", "--concurrency=20"], json!({})),
            json!({
                "limits": [{ "name": "per-second", "rate": "5/s", "burst": 15, "per": ["key", "route"] }],
                "quotas": [{ "name": "daily", "limit": 10_000, "period": "day" }],
                "concurrency": 20,
            })
        );
    }

    #[test]
    fn flags_change_the_policy_of_their_name_and_leave_the_others() {
        let before = json!({
            "limits": [
                { "name": "per-second", "per": ["key"], "rate": "5/s", "burst": 15 },
                { "name": "per-day", "per": ["account"], "rate": "100/d", "burst": 1 },
            ],
            "concurrency": 3,
        });
        let after = laid(&["--rate=9/s"], before);
        assert_eq!(after["limits"][0], json!({ "name": "per-second", "per": ["key"], "rate": "9/s", "burst": 9 }));
        assert_eq!((&after["limits"][1]["rate"], &after["concurrency"]), (&json!("100/d"), &json!(3)));
        let one = json!({ "limits": [{ "name": "x", "rate": "5/s", "burst": 15 }] });
        assert_eq!(laid(&["--burst=3"], one)["limits"][0], json!({ "name": "x", "rate": "5/s", "burst": 3 }));
    }

    #[test]
    fn quotas_read_and_refuse() {
        assert!("1/fortnight".parse::<Quota>().is_err() && "x/day".parse::<Quota>().is_err());
        let flags = Wrapper::try_parse_from(["x", "--burst=3"]).expect("flags").flags;
        assert_eq!(flags.lay(&mut json!({})).expect_err("no limit to change").code(), 2);
    }
}

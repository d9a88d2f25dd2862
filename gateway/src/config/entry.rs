//! What an entry can be: how its text is read and what is said when it cannot be.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use serde::Deserialize;

/// A type of setting.
pub(super) trait Entry: FromStr + fmt::Debug {
    /// What is expected, as the second half of "expected …".
    const FORM: &'static str;

    /// The value as the environment and `--help` write it.
    fn text(&self) -> String;
}

macro_rules! plain_entry {
    ($($type:ty: $form:literal;)+) => {$(
        impl Entry for $type {
            const FORM: &'static str = $form;
            fn text(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

plain_entry! {
    u8: "a whole number";
    u16: "a whole number";
    u32: "a whole number";
    u64: "a whole number";
    usize: "a whole number";
    bool: "true or false";
    f64: "a number";
    SocketAddr: "an IP address and a port";
    String: "text";
    LogFormat: "\"text\" or \"json\"";
    ClientAuth: "\"required\" or \"optional\"";
    List: "a list of texts (in the environment and in flags: separated by commas)";
}

impl Entry for PathBuf {
    const FORM: &'static str = "a path";
    fn text(&self) -> String {
        self.display().to_string()
    }
}

/// Texts: an array in the file, separated by commas in the environment and in flags.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct List(pub Vec<String>);

impl FromStr for List {
    type Err = String;
    /// Nothing at all is an empty list; an item that is empty is a mistake (a variable that was not set, mostly).
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let items: Vec<_> = text.split(',').map(|item| item.trim().to_owned()).collect();
        if items.iter().any(String::is_empty) {
            return Err(format!("an item of {text:?} is empty; expected {}", Self::FORM));
        }
        Ok(Self(items))
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("expected {}", Self::FORM)),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Whether a client must show a certificate where it is asked for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    /// One without is refused.
    #[default]
    Required,
    /// One without is let through; one that shows a wrong one is refused.
    Optional,
}

impl FromStr for ClientAuth {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "required" => Ok(Self::Required),
            "optional" => Ok(Self::Optional),
            _ => Err(format!("expected {}", Self::FORM)),
        }
    }
}

impl fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Optional => "optional",
        })
    }
}

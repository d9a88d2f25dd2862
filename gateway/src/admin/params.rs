//! Query parameters: all that are wrong are told at once, and one that is unknown is refused rather than ignored, for a
//! mistyped filter would answer with everything.

use std::{fmt::Display, str::FromStr};

use axum::extract::{FromRequestParts, Query};
use http::{Method, Uri, request::Parts};
use store::model::Timestamp;

use super::{
    forms,
    problem::{Code, FieldError, Problem, Result},
};

/// Items of a page when the caller does not say.
const DEFAULT_PAGE_ITEMS: usize = 50;
/// Most items of a page.
const MAX_PAGE_ITEMS: usize = 1_000;

/// Longest cursor: the longest key of a list, and some room.
const MAX_CURSOR_BYTES: usize = 80;

/// A request's query parameters.
#[derive(Debug)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    asked: Vec<&'static str>,
    errors: Vec<FieldError>,
    meaningless: Vec<FieldError>,
    /// Of a GET: it may say how fresh, and which fields.
    reads: bool,
}

/// Which part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) limit: usize,
    /// The last item of the page before.
    pub(crate) after: Option<String>,
}

impl Params {
    /// A request's.
    pub(super) fn of(method: &Method, uri: &Uri) -> Result<Self> {
        let Query(pairs) = Query::try_from_uri(uri).map_err(|error| {
            let told = FieldError { pointer: "?".into(), detail: format!("the query cannot be read: {error}") };
            Problem::invalid(Code::MalformedQuery, vec![told])
        })?;
        let reads = method == Method::GET || method == Method::HEAD;
        Ok(Self { pairs, asked: Vec::new(), errors: Vec::new(), meaningless: Vec::new(), reads })
    }

    /// A parameter's text.
    pub(crate) fn text(&mut self, name: &'static str) -> Option<String> {
        self.asked.push(name);
        let place = self.pairs.iter().position(|(key, _)| key == name)?;
        let (_, value) = self.pairs.remove(place);
        if self.pairs.iter().any(|(key, _)| key == name) {
            self.pairs.retain(|(key, _)| key != name);
            self.refuse(name, "is given more than once");
        }
        Some(value)
    }

    /// A text that cannot be just anything.
    pub(crate) fn fitting(
        &mut self,
        name: &'static str,
        form: &str,
        fits: impl FnOnce(&str) -> bool,
    ) -> Option<String> {
        let text = self.text(name)?;
        if !fits(&text) {
            self.refuse(name, format!("does not fit; expected {form}"));
        }
        Some(text)
    }

    /// The name of a tier, route or upstream, or its beginning.
    pub(crate) fn name(&mut self, name: &'static str) -> Option<String> {
        self.fitting(name, forms::NAME_FORM, forms::is_name)
    }

    /// An account's id, or its beginning.
    pub(crate) fn slug(&mut self, name: &'static str) -> Option<String> {
        self.fitting(name, "an account's id", forms::is_slug)
    }

    /// Any text that somebody may look for.
    pub(crate) fn short(&mut self, name: &'static str) -> Option<String> {
        self.fitting(name, "1 to 200 characters", |text| (1..=200).contains(&text.chars().count()))
    }

    /// A parameter that is read as something else.
    pub(crate) fn parsed<T: FromStr>(&mut self, name: &'static str, form: &str) -> Option<T> {
        let text = self.text(name)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.refuse(name, format!("{text:?} does not fit; expected {form}"));
        }
        parsed
    }

    /// A time; a `+` that arrived as a space is one again.
    pub(crate) fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        let text = self.text(name)?;
        let time = text.replace(' ', "+").parse().ok();
        if time.is_none() {
            self.refuse(name, format!("{text:?} does not fit; expected a time like 2026-01-31T12:00:00Z"));
        }
        time
    }

    /// One of some texts.
    pub(crate) fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = choices.iter().find(|(choice, _)| *choice == text).map(|(_, value)| *value);
        if found.is_none() {
            let form = choices.iter().map(|(text, _)| *text).collect::<Vec<_>>().join(", ");
            self.refuse(name, format!("{text:?} does not fit; expected one of {form}"));
        }
        found
    }

    /// Whether something is asked for; not said is no.
    pub(crate) fn flag(&mut self, name: &'static str) -> bool {
        self.choice(name, &[("true", true), ("false", false)]).unwrap_or(false)
    }

    /// `limit`.
    pub(crate) fn limit(&mut self) -> usize {
        let form = "a whole number from 1 to 1000";
        let limit = self.parsed("limit", form).unwrap_or(DEFAULT_PAGE_ITEMS);
        if !(1..=MAX_PAGE_ITEMS).contains(&limit) {
            self.refuse("limit", format!("{limit} does not fit; expected {form}"));
        }
        limit
    }

    /// `limit` and `cursor` of a list whose cursors [`Page::cut`] makes: the last item's own key, so any key is one, and
    /// whatever comes and goes meanwhile, the next page starts behind it.
    pub(crate) fn page(&mut self) -> Page {
        let limit = self.limit();
        let after = self.text("cursor");
        let fits = |text: &str| {
            (1..=MAX_CURSOR_BYTES).contains(&text.len())
                && text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if after.as_deref().is_some_and(|text| !fits(text)) {
            self.refuse("cursor", "is not valid: use a next_cursor as it was given");
        }
        Page { limit, after }
    }

    /// Tells that a parameter fits and what it asks for does not make sense.
    pub(crate) fn refuse_meaning(&mut self, name: &str, detail: impl Into<String>) {
        self.meaningless.push(FieldError { pointer: format!("?{name}"), detail: detail.into() });
    }

    /// Tells that something is wrong with a parameter.
    pub(crate) fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        self.errors.push(FieldError { pointer: format!("?{name}"), detail: detail.into() });
    }

    /// Refuses the request when anything was wrong.
    pub(crate) fn finish(mut self) -> Result<()> {
        for (name, _) in std::mem::take(&mut self.pairs) {
            // Read for every resource by the layers that make reads linearizable and cut answers.
            let beside = self.reads && [super::freshness::PARAMETER, super::fields::PARAMETER].contains(&name.as_str());
            if !beside {
                let known = if self.asked.is_empty() { "none".to_owned() } else { self.asked.join(", ") };
                self.refuse(&name, format!("is not a parameter here; expected {known}"));
            }
        }
        // A query that can be read and makes no sense is another matter than one that cannot.
        let code = if self.errors.is_empty() { Code::InvalidQuery } else { Code::MalformedQuery };
        self.errors.append(&mut self.meaningless);
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(code, self.errors)) }
    }
}

impl Page {
    /// Cuts one item more than the page has, and says where the next page starts.
    pub(crate) fn cut<T, K: Display>(&self, items: &mut Vec<T>, key: impl Fn(&T) -> K) -> Option<String> {
        if items.len() <= self.limit {
            return None;
        }
        items.truncate(self.limit);
        items.last().map(|last| Self::cursor(key(last)))
    }

    /// The cursor after an item.
    pub(crate) fn cursor(key: impl Display) -> String {
        key.to_string()
    }

    /// The page of a whole list that is ordered by `key`.
    pub(crate) fn of<T, K: AsRef<str>>(&self, items: Vec<T>, key: impl Fn(&T) -> K) -> (Vec<T>, Option<String>) {
        let mut items: Vec<T> = items
            .into_iter()
            .filter(|item| self.after.as_ref().is_none_or(|after| key(item).as_ref() > after.as_str()))
            .take(self.limit + 1)
            .collect();
        let next = self.cut(&mut items, |item| key(item).as_ref().to_owned());
        (items, next)
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Self::of(&parts.method, &parts.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params::of(&Method::GET, &format!("/x?{query}").parse().expect("a uri")).expect("pairs")
    }

    #[test]
    fn wrong_and_unknown_parameters_are_told_together() {
        let mut params = params("limit=0&acount=x&since=yesterday&status=2&status=3&consistency=stale");
        params.page();
        params.time("since");
        params.text("status");
        let pointers: Vec<String> =
            params.finish().expect_err("refused").errors().iter().map(|error| error.pointer.clone()).collect();
        assert_eq!(pointers, ["?limit", "?since", "?status", "?acount"]);
        // How fresh and which fields is said of reads alone.
        assert!(Params { reads: true, ..self::params("fields=id") }.finish().is_ok());
        assert!(Params { reads: false, ..self::params("fields=id") }.finish().is_err());
    }

    #[test]
    fn an_offset_whose_plus_became_a_space_is_still_a_time() {
        assert_eq!(params("since=2026-01-31T12:00:00+02:00").time("since"), "2026-01-31T10:00:00Z".parse().ok());
    }

    #[test]
    fn pages_join_without_a_gap() {
        let all = || vec!["a", "b", "c", "d", "e"];
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let (items, next) = Page { limit: 2, after }.of(all(), |item| *item);
            seen.extend(items);
            let Some(next) = next else { break };
            after = params(&format!("cursor={next}")).page().after;
        }
        assert_eq!(seen, all());
    }
}

//! The small parts of OTLP's messages.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
};

use super::Settings;

/// An attribute whose value is a text.
pub(super) fn attribute(key: &str, value: impl Into<String>) -> KeyValue {
    pair(key, Value::StringValue(value.into()))
}

/// An attribute whose value is a number.
pub(super) fn integer(key: &str, value: i64) -> KeyValue {
    pair(key, Value::IntValue(value))
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Who speaks.
pub(super) fn resource(settings: &Settings) -> Resource {
    let mut attributes = vec![
        attribute("service.name", "tollgate"),
        attribute("service.version", env!("CARGO_PKG_VERSION")),
        attribute("service.instance.id", settings.node.as_str()),
    ];
    if !settings.region.is_empty() {
        attributes.push(attribute("cloud.region", settings.region.as_str()));
    }
    Resource { attributes, ..Resource::default() }
}

/// What made it.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "tollgate".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

//! What the description of the native API cannot take from its types: the languages and bounds of the templates, and the
//! errors that routes have in common.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, Type};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Content, OpenApi, Ref, RefOr};
use utoipa::{IntoResponses, Number, PartialSchema, ToSchema};

use crate::http::error::ErrorBody;
use crate::http::run_request::LEAST;
use crate::sandbox::{NetworkKind, Template};

type Responses = BTreeMap<String, RefOr<Response>>;

/// The errors of a route that requires no key.
pub(super) struct HeadErrors;

/// The errors of a route that requires a key.
pub(super) struct KeyErrors;

/// The errors of a run.
pub(super) struct RunErrors;

impl IntoResponses for HeadErrors {
    fn responses() -> Responses {
        let allow = ("Allow", "The methods that the path takes.", Type::String);
        errors(&[(405, "The path does not take this method.", &[allow])])
    }
}

impl IntoResponses for KeyErrors {
    fn responses() -> Responses {
        let mut responses = errors(&[
            (400, "Headers contradict each other.", &[]),
            (401, "The server has keys, and the request carries none of them.", &[]),
            (403, "The key lacks a scope; or a web page sends the request to a server that has no keys.", &[]),
        ]);
        responses.extend(HeadErrors::responses());
        responses
    }
}

impl IntoResponses for RunErrors {
    fn responses() -> Responses {
        let mut responses = KeyErrors::responses();
        let retry = [
            ("Retry-After", "After how many seconds the request may succeed.", Type::Integer),
            ("Should-Retry", "`false` if waiting does not help.", Type::String),
        ];
        responses.extend(errors(&[
            (400, "The body is invalid, the language unknown, or headers contradict each other.", &[]),
            (403, "The key lacks the scope, or may not use this template or network.", &[]),
            (413, "The body is too large.", &[]),
            (415, "The body has a `Content-Encoding`.", &[]),
            (429, "All sandboxes are in use, or the key has reached a limit.", &retry),
            (503, "No sandbox could be started, or the server shuts down.", &retry[..1]),
        ]));
        responses
    }
}

type ErrorRow<'a> = (u16, &'a str, &'a [(&'a str, &'a str, Type)]);

fn errors(rows: &[ErrorRow<'_>]) -> Responses {
    let response = |(status, description, headers): &ErrorRow<'_>| {
        let content = Content::new(Some(Ref::from_schema_name(ErrorBody::name())));
        let response = ResponseBuilder::new().description(*description).content("application/json", content);
        let response = headers.iter().fold(response, |response, (name, description, kind)| {
            let schema = ObjectBuilder::new().schema_type(kind.clone());
            response.header(*name, HeaderBuilder::new().schema(Some(schema)).description(Some(*description)).build())
        });
        (status.to_string(), response.build().into())
    };
    rows.iter().map(response).collect()
}

/// Adds what the types lack: tags, the schema of errors, and what these templates decide: which languages there are, and
/// which bounds.
pub(super) fn fill_in(api: &mut OpenApi, templates: &[Arc<Template>]) {
    let tag = |name, line: &str| TagBuilder::new().name(name).description(Some(line)).build();
    api.tags = Some(vec![
        tag("run", "Runs code, each time in a sandbox of its own."),
        tag("server", "Languages, state and health of the server."),
    ]);
    let schemas = &mut api.components.as_mut().expect("there are schemas").schemas;
    let mut types = Vec::new();
    ErrorBody::schemas(&mut types);
    types.push((ErrorBody::name().into_owned(), ErrorBody::schema()));
    schemas.extend(types);
    // A client that only knows today's kinds must not fail at tomorrow's.
    let kinds = object(schemas, "OutcomeKind");
    kinds.examples = kinds.enum_values.take().unwrap_or_default();

    let runs: Vec<_> = templates.iter().filter(|template| template.runs).collect();
    let names: Vec<Value> = runs
        .iter()
        .flat_map(|template| std::iter::once(&template.name).chain(&template.aliases))
        .map(|name| json!(name))
        .collect();
    let request = object(schemas, "RunRequest");
    if let Some(name) = names.first() {
        request.examples = vec![json!({"language": name, "code": "6 * 7"})];
    }
    property(request, "language").enum_values = Some(names);
    // A request can choose the network of its template or none.
    let kinds = [NetworkKind::Full, NetworkKind::Allowlist, NetworkKind::None];
    let can_be =
        |kind: &NetworkKind| *kind == NetworkKind::None || runs.iter().any(|template| template.network == *kind);
    let networks = kinds.iter().filter(|kind| can_be(kind)).map(|kind| json!(kind)).chain([Value::Null]).collect();
    property(request, "network").enum_values = Some(networks);
    let within = |object: &mut Object, name: &str, least: u64, most: fn(&Template) -> u64| {
        let most = || runs.iter().map(|template| most(template));
        let property = property(object, name);
        // The value of a template may be below the least that is taken elsewhere.
        property.minimum = most().min().map(|smallest| number(smallest.min(least)));
        property.maximum = most().max().map(number);
    };
    within(request, "timeout_ms", LEAST.timeout_ms, |template| template.max_timeout_ms);
    let limits = object(schemas, "LimitsRequest");
    within(limits, "memory_bytes", LEAST.memory_bytes, |template| template.memory_bytes);
    within(limits, "cpu_millis", LEAST.cpu_millis, |template| template.cpu_millis);
    within(limits, "processes", LEAST.processes, |template| template.processes);
    within(limits, "disk_bytes", LEAST.disk_bytes, |template| template.disk_bytes);
    within(limits, "output_bytes", LEAST.output_bytes, |template| template.output_bytes);
}

fn number(value: u64) -> Number {
    Number::UInt(usize::try_from(value).unwrap_or(usize::MAX))
}

fn object<'a>(schemas: &'a mut BTreeMap<String, RefOr<Schema>>, name: &str) -> &'a mut Object {
    match schemas.get_mut(name) {
        Some(RefOr::T(Schema::Object(object))) => object,
        _ => panic!("{name} is described as an object"),
    }
}

fn property<'a>(object: &'a mut Object, name: &str) -> &'a mut Object {
    match object.properties.get_mut(name) {
        Some(RefOr::T(Schema::Object(object))) => object,
        _ => panic!("{name} is described as a member"),
    }
}

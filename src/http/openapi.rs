//! The description of all APIs, in OpenAPI. Each dialect describes its routes; what holds for all of them is added here.

use std::sync::Arc;

use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Required};

use super::dialect::{Dialect, Need};
use crate::sandbox::Template;

/// The names of the two ways to send a key.
const KEY: &str = "key";
const BEARER: &str = "bearer";

/// Describes the routes of these dialects on a server with these templates.
pub(super) fn describe(dialects: &[Arc<dyn Dialect>], templates: &[Arc<Template>]) -> OpenApi {
    let info = InfoBuilder::new()
        .title(env!("CARGO_PKG_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(env!("CARGO_PKG_DESCRIPTION")))
        .license(Some(LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).build()));
    let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key")));
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let components = ComponentsBuilder::new().security_scheme(KEY, key).security_scheme(BEARER, bearer);
    let mut api = OpenApiBuilder::new().info(info).components(Some(components.build())).build();
    // The server's own API is the last of the dialects, and is read first.
    for dialect in dialects.iter().rev() {
        let mut part = dialect.describe(templates);
        for (route, item) in &mut part.paths.paths {
            for (method, operation) in operations(item) {
                complete(operation, method, route, dialect.needs());
            }
        }
        // A parameter that takes the rest of a path is written like any other in a description.
        let paths = std::mem::take(&mut part.paths.paths);
        part.paths.paths = paths.into_iter().map(|(route, item)| (route.replace("{*", "{"), item)).collect();
        api.merge(part);
    }
    api
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let all = [
        ("GET", &mut item.get),
        ("PUT", &mut item.put),
        ("POST", &mut item.post),
        ("PATCH", &mut item.patch),
        ("DELETE", &mut item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Adds the parameters of the path, and the scopes of which a key needs one.
fn complete(operation: &mut Operation, method: &str, route: &str, needs: &'static [Need]) {
    let names = route.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
        parameter.required(Required::True).schema(Some(text)).build()
    };
    let parameters = operation.parameters.get_or_insert_default();
    parameters.extend(names.map(|name| parameter(name.trim_start_matches('*')).into()));
    if parameters.is_empty() {
        operation.parameters = None;
    }
    let Some(need) = Need::find(needs, method, route) else { return };
    let scopes: Vec<_> = match need.scopes {
        [] => vec![vec![]],
        scopes => scopes.iter().map(|scope| vec![scope.name()]).collect(),
    };
    let ways =
        scopes.iter().flat_map(|scopes| [KEY, BEARER].map(|way| SecurityRequirement::new(way, scopes.iter().copied())));
    operation.security = Some(ways.collect());
}

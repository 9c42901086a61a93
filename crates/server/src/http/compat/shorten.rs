//! POST /urls and POST /api/v1/shorten: creating a link, by other names and in camelCase if asked so.

use super::{Style, snake};
use crate::app::App;
use crate::http::api::links::create_link;
use crate::http::api::wire::{CreateLinkRequest, LinkAnswer};
use crate::http::auth::Context;
use crate::http::body::{Payload, parse_json};
use crate::http::error::{ApiError, BodyProblems, ErrorCode, KeyProblems, Problem};
use axum::extract::State;
use axum::response::Response;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;

/// Other names of our fields.
const SYNONYMS: [(&str, &str); 3] =
    [("original_url", "long_url"), ("url", "long_url"), ("alias", "custom_alias")];

/// Create a link, by other names
///
/// The same as `POST /api/v1/urls`. Takes `original_url`, `long_url` or `url`; `custom_alias` or `alias`; all names
/// also in camelCase, and then the answer is in camelCase too.
#[utoipa::path(
    post, path = "/api/v1/shorten", tag = "Other shapes",
    request_body = CreateLinkRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeat a request safely", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    responses(
        (status = 200, description = "An equal link was there (`find_if_exists`)", body = LinkAnswer),
        (status = 201, description = "The link is on disk", body = LinkAnswer, headers(("Location" = String, description = "The short link"))),
        (status = 400, description = "INVALID_URL, VALIDATION_ERROR or ALIAS_RESERVED", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 409, description = "ALIAS_TAKEN", body = Problem, content_type = "application/problem+json"),
        BodyProblems,
        (status = 422, description = "IDEMPOTENCY_MISMATCH", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "RATE_LIMIT_EXCEEDED", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("key" = []), ("header_key" = [])),
)]
pub async fn shorten(
    State(app): State<Arc<App>>,
    context: Context,
    payload: Payload,
) -> Result<Response, ApiError> {
    context.require_create()?;
    let (request, style) = translate(payload.json()?)?;
    create_link(app, context, payload.bytes, request, style).await
}

/// The fields of an object as they were sent; a map would drop one of two with the same name.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

fn translate(Fields(fields): Fields) -> Result<(CreateLinkRequest, Style), ApiError> {
    let is_camel = fields.iter().any(|(key, _)| key.bytes().any(|byte| byte.is_ascii_uppercase()));
    let mut renamed = Map::new();
    for (key, value) in fields {
        let snaked = snake(&key);
        let known =
            SYNONYMS.iter().find(|(synonym, _)| *synonym == snaked).map(|(_, name)| (*name).to_owned());
        let name = known.unwrap_or(snaked);
        if renamed.insert(name.clone(), value).is_some() {
            let text = format!("says the same as another field, {name}; send one of them");
            return Err(ApiError::new(ErrorCode::ValidationError, "").at(key, text));
        }
    }
    let json = serde_json::to_vec(&renamed).expect("what was JSON is JSON");
    Ok((parse_json(&json)?, if is_camel { Style::Camel } else { Style::Snake }))
}

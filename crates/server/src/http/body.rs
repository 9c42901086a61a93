//! Request bodies: bounded in size and time, and read with errors that name the field.

use super::error::{ApiError, ErrorCode};
use crate::app::App;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Longest body of a request that is not bulk, in bytes.
pub const BODY_LEN_MAX: usize = 256 << 10;
/// Longest body of a bulk request, in bytes.
pub const BULK_LEN_MAX: usize = 64 << 20;
/// The slowest upload of a large body that is waited for, in bytes a second.
const UPLOAD_RATE_MIN: u64 = 256 << 10;

/// What a body is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`, `application/merge-patch+json`, or nothing said.
    Json,
    /// `application/x-ndjson` and its synonyms.
    Ndjson,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// Anything else.
    Other,
}

impl MediaType {
    /// What the headers say.
    pub fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(CONTENT_TYPE) else { return MediaType::Json };
        let value = value.to_str().unwrap_or_default();
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" | "application/merge-patch+json" => MediaType::Json,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => MediaType::Ndjson,
            "application/x-www-form-urlencoded" => MediaType::Form,
            _ => MediaType::Other,
        }
    }
}

/// A whole body of at most `MAX` bytes.
#[derive(Clone, Debug)]
pub struct Payload<const MAX: usize = BODY_LEN_MAX> {
    /// What it is said to be.
    pub media_type: MediaType,
    /// The bytes.
    pub bytes: Bytes,
}

impl<const MAX: usize> FromRequest<Arc<App>> for Payload<MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let media_type = MediaType::of(request.headers());
        let bytes = read(request, MAX, app.config.http.body_timeout).await?;
        Ok(Payload { media_type, bytes })
    }
}

async fn read(request: Request, max: usize, timeout: Duration) -> Result<Bytes, ApiError> {
    let too_large =
        || ApiError::new(ErrorCode::PayloadTooLarge, format!("a body here is at most {max} bytes"));
    let mut body = request.into_body();
    let hint = http_body::Body::size_hint(&body);
    if hint.lower() > max as u64 {
        return Err(too_large());
    }
    let deadline = Instant::now() + timeout + Duration::from_secs(hint.lower() / UPLOAD_RATE_MIN);
    let mut bytes = BytesMut::with_capacity(hint.lower() as usize);
    loop {
        let frame = timeout_at(deadline, body.frame())
            .await
            .map_err(|_| ApiError::new(ErrorCode::ValidationError, "the body took too long to arrive"))?;
        match frame {
            None => return Ok(bytes.freeze()),
            Some(Err(_)) => return Err(ApiError::new(ErrorCode::ValidationError, "the body broke off")),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    if bytes.len() + data.len() > max {
                        return Err(too_large());
                    }
                    bytes.extend_from_slice(data);
                }
            }
        }
    }
}

impl<const MAX: usize> Payload<MAX> {
    /// The body as a JSON object of this shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        match self.media_type {
            MediaType::Json => parse_object(&self.bytes),
            _ => Err(unsupported("application/json")),
        }
    }

    /// The fields of a form.
    pub fn form(&self) -> Result<Vec<(String, String)>, ApiError> {
        match self.media_type {
            MediaType::Form => Ok(url::form_urlencoded::parse(&self.bytes).into_owned().collect()),
            _ => Err(unsupported("application/x-www-form-urlencoded")),
        }
    }
}

/// The body is of another type than `expected`.
pub fn unsupported(expected: &str) -> ApiError {
    ApiError::new(ErrorCode::UnsupportedMediaType, format!("the body must be {expected}"))
}

/// Reads a JSON object. A derived reader would also take an array, as the values of the fields in their order.
pub fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    match bytes.trim_ascii_start().first() {
        None | Some(b'{') => parse_json(bytes),
        Some(_) => Err(ApiError::new(ErrorCode::ValidationError, "expected a JSON object, `{ … }`")),
    }
}

/// Reads JSON; an error names the field.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let text = error.inner().to_string();
        match path.as_str() {
            "." => ApiError::new(ErrorCode::ValidationError, format!("the body is not as expected: {text}")),
            _ => ApiError::invalid(path, text),
        }
    })?;
    json.end().map_err(|error| {
        ApiError::new(ErrorCode::ValidationError, format!("the body goes on after its JSON: {error}"))
    })?;
    Ok(parsed)
}

/// An answer in JSON that nobody keeps.
pub fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    json_text_response(status, serde_json::to_string(body).expect("answers are JSON"))
}

/// The same from text that is JSON already.
pub fn json_text_response(status: StatusCode, body: String) -> Response {
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

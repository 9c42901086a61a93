//! The API reference: an OpenAPI document, cut down to what its template shows.

use super::text_of;
use askama::Template;
use serde_json::{Map, Value};

const METHODS: [&str; 8] = ["get", "post", "put", "patch", "delete", "head", "options", "trace"];
const SCHEMA_PREFIX: &str = "#/components/schemas/";
const UNTAGGED: &str = "Other";
/// Schemas may refer to themselves; nothing is followed deeper than this.
const DEPTH_MAX: usize = 8;

/// Renders an OpenAPI 3.1 document as a page to read. A part that is missing or odd is left out.
///
/// `externalDocs` of the document, if there, is linked at the top; the place to point at the JSON itself.
pub fn docs(openapi: &Value) -> String {
    text_of(&Document(openapi).page())
}

#[derive(Template)]
#[template(path = "docs.html")]
struct Docs {
    title: String,
    version: String,
    servers: Vec<String>,
    more: Option<Link>,
    intro: Vec<Block>,
    schemes: Vec<Scheme>,
    groups: Vec<Group>,
    schemas: Vec<Schema>,
}

#[derive(Debug, PartialEq)]
struct Link {
    text: String,
    href: String,
}

struct Scheme {
    how: String,
    sample: String,
    about: Vec<Block>,
}

/// Operations under one tag.
struct Group {
    name: String,
    anchor: String,
    about: Vec<Block>,
    operations: Vec<Operation>,
}

struct Operation {
    anchor: String,
    method: &'static str,
    path: String,
    summary: String,
    about: Vec<Block>,
    access: String,
    deprecated: bool,
    parameters: Vec<Field>,
    bodies: Vec<Body>,
    responses: Vec<Response>,
}

impl Operation {
    fn title(&self) -> &str {
        if self.summary.is_empty() { &self.path } else { &self.summary }
    }
}

struct Body {
    media: String,
    required: bool,
    about: Vec<Block>,
    shape: Shape,
    example: String,
}

struct Response {
    status: String,
    about: Vec<Block>,
    contents: Vec<Content>,
    headers: Vec<Header>,
}

impl Response {
    /// First character of the status, or `x` for `default`.
    fn class(&self) -> char {
        self.status.chars().next().filter(char::is_ascii_digit).unwrap_or('x')
    }
}

struct Content {
    media: String,
    kind: Kind,
}

struct Header {
    name: String,
    about: String,
}

struct Schema {
    name: String,
    anchor: String,
    about: Vec<Block>,
    shape: Shape,
}

/// What a value looks like: an object's fields, or a choice of variants, or just a kind.
struct Shape {
    kind: Kind,
    fields: Vec<Field>,
    variants: Vec<Variant>,
    facts: Vec<Fact>,
}

struct Variant {
    kind: Kind,
    about: Vec<Block>,
    fields: Vec<Field>,
    facts: Vec<Fact>,
}

impl Shape {
    fn is_plain(&self) -> bool {
        self.fields.is_empty() && self.variants.is_empty()
    }
}

/// Properties and required names, gathered over the parts of a schema.
#[derive(Default)]
struct Object<'a> {
    properties: Vec<(&'a str, &'a Value)>,
    required: Vec<&'a str>,
}

/// A parameter of a request or a field of an object.
struct Field {
    name: String,
    /// `query`, `path` or `header` of a parameter; empty for a field.
    place: String,
    required: bool,
    deprecated: bool,
    kind: Kind,
    about: Vec<Block>,
    facts: Vec<Fact>,
}

/// Something about a value in words: label, values, unit.
struct Fact {
    label: &'static str,
    values: Vec<String>,
    unit: &'static str,
}

/// A type in words, such as "array of Link or null", with links to the schemas.
type Kind = Vec<KindPart>;

struct KindPart {
    text: String,
    anchor: Option<String>,
}

/// The Markdown that doc comments are written in, as far as they use it.
#[derive(Debug, PartialEq)]
enum Block {
    Paragraph(Vec<Span>),
    List(Vec<Vec<Span>>),
    Code(String),
}

#[derive(Debug, PartialEq)]
enum Span {
    Text(String),
    Code(String),
    Link(Link),
}

/// Reads the document leniently: what isn't there is empty.
struct Document<'a>(&'a Value);

impl<'a> Document<'a> {
    fn page(&self) -> Docs {
        let info = &self.0["info"];
        Docs {
            title: info["title"].as_str().unwrap_or("API").to_owned(),
            version: text(&info["version"]),
            servers: items(&self.0["servers"]).map(|server| text(&server["url"])).collect(),
            more: self.more(),
            intro: prose(&info["description"]),
            schemes: self.schemes(),
            groups: self.groups(),
            schemas: self.schemas(),
        }
    }

    fn more(&self) -> Option<Link> {
        let docs = &self.0["externalDocs"];
        let href = docs["url"].as_str().filter(|url| is_safe_href(url))?;
        Some(Link { text: docs["description"].as_str().unwrap_or(href).to_owned(), href: href.to_owned() })
    }

    fn schemes(&self) -> Vec<Scheme> {
        let schemes = entries(&self.0["components"]["securitySchemes"]);
        schemes.map(|(name, scheme)| self.scheme(name, self.follow(scheme))).collect()
    }

    fn scheme(&self, name: &str, scheme: &'a Value) -> Scheme {
        let word = |key: &str| scheme[key].as_str().unwrap_or_default();
        let (how, sample) = match (word("type"), word("scheme"), word("in")) {
            ("http", "bearer", _) => {
                ("Send the key in a header".into(), "Authorization: Bearer <key>".into())
            }
            ("http", "basic", _) => (
                "Send name and password in a header".into(),
                "Authorization: Basic <base64 of name:password>".into(),
            ),
            ("apiKey", _, "header") => {
                ("Send the key in a header".into(), format!("{}: <key>", word("name")))
            }
            ("apiKey", _, "query") => {
                ("Send the key in the query".into(), format!("?{}=<key>", word("name")))
            }
            ("apiKey", _, "cookie") => {
                ("Send the key in a cookie".into(), format!("Cookie: {}=<key>", word("name")))
            }
            ("openIdConnect", ..) => {
                ("Sign in by OpenID Connect".into(), word("openIdConnectUrl").to_owned())
            }
            ("oauth2", ..) => ("Sign in by OAuth 2".into(), String::new()),
            _ => (name.to_owned(), String::new()),
        };
        Scheme { how, sample, about: prose(&scheme["description"]) }
    }

    /// Tags in the document's order, then those that only operations name.
    fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for tag in items(&self.0["tags"]) {
            groups.push(Group::new(text(&tag["name"]), prose(&tag["description"])));
        }
        for (path, item) in entries(&self.0["paths"]) {
            for method in METHODS {
                let operation = &item[method];
                if !operation.is_object() {
                    continue;
                }
                let tag = operation["tags"][0].as_str().unwrap_or(UNTAGGED);
                let at = groups.iter().position(|group| group.name == tag).unwrap_or_else(|| {
                    groups.push(Group::new(tag.to_owned(), Vec::new()));
                    groups.len() - 1
                });
                groups[at].operations.push(self.operation(method, path, item, operation));
            }
        }
        groups.retain(|group| !group.operations.is_empty());
        for group in &mut groups {
            group.operations.sort_by_key(|operation| operation.deprecated);
        }
        groups
    }

    fn operation(
        &self,
        method: &'static str,
        path: &str,
        item: &'a Value,
        operation: &'a Value,
    ) -> Operation {
        let parameters = items(&item["parameters"]).chain(items(&operation["parameters"]));
        let responses = entries(&operation["responses"]);
        Operation {
            anchor: format!("{method}-{}", anchor(path)),
            method,
            path: path.to_owned(),
            summary: text(&operation["summary"]).trim_end_matches('.').to_owned(),
            about: prose(&operation["description"]),
            access: self.access(operation),
            deprecated: operation["deprecated"] == true,
            parameters: parameters.map(|parameter| self.parameter(parameter)).collect(),
            bodies: self.bodies(&operation["requestBody"]),
            responses: responses.map(|(status, response)| self.response(status, response)).collect(),
        }
    }

    /// Says what an operation asks for, where the document says it.
    fn access(&self, operation: &Value) -> String {
        let Some(choices) = operation.get("security").or(self.0.get("security")).and_then(Value::as_array)
        else {
            return String::new();
        };
        let is_open = |choice: &Value| choice.as_object().is_none_or(Map::is_empty);
        let scopes =
            choices.iter().flat_map(entries).flat_map(|(_, scopes)| items(scopes)).filter_map(Value::as_str);
        let scopes = scopes.collect::<Vec<_>>().join(", ");
        match (choices.iter().all(is_open), choices.iter().any(is_open), scopes.as_str()) {
            (true, ..) => "Needs no key.".to_owned(),
            (_, true, "") => "Works with or without a key.".to_owned(),
            (_, true, scopes) => format!("Works without a key; a key needs the scope {scopes}."),
            (_, false, "") => "Needs a key.".to_owned(),
            (_, false, scopes) => format!("Needs a key with the scope {scopes}."),
        }
    }

    fn parameter(&self, parameter: &'a Value) -> Field {
        let parameter = self.follow(parameter);
        let schema = parameter.get("schema").unwrap_or(&Value::Null);
        let mut field = self.field(text(&parameter["name"]), schema, parameter["required"] == true);
        field.place = text(&parameter["in"]);
        field.deprecated |= parameter["deprecated"] == true;
        if parameter["description"].is_string() {
            field.about = prose(&parameter["description"]);
        }
        if let Some(example) = parameter.get("example") {
            field.facts.retain(|fact| fact.label != "example");
            field.facts.push(Fact::new("example", example));
        }
        field
    }

    fn bodies(&self, body: &'a Value) -> Vec<Body> {
        let body = self.follow(body);
        let contents = entries(&body["content"]);
        contents
            .enumerate()
            .map(|(at, (media, content))| Body {
                media: media.to_owned(),
                required: body["required"] == true,
                about: if at == 0 { prose(&body["description"]) } else { Vec::new() },
                shape: self.shape(&content["schema"]),
                example: self.example(content),
            })
            .collect()
    }

    fn example(&self, content: &'a Value) -> String {
        let named = entries(&content["examples"]).find_map(|(_, example)| self.follow(example).get("value"));
        let schema = self.core(&content["schema"]);
        let of_schema = || schema.get("example").or_else(|| schema["examples"].get(0));
        match content.get("example").or(named).or_else(of_schema) {
            Some(Value::String(example)) => example.clone(),
            Some(example) => format!("{example:#}"),
            None => String::new(),
        }
    }

    fn response(&self, status: &str, response: &'a Value) -> Response {
        let response = self.follow(response);
        let contents = entries(&response["content"])
            .map(|(media, content)| Content { media: media.to_owned(), kind: self.kind(&content["schema"]) });
        let headers = entries(&response["headers"]).map(|(name, header)| Header {
            name: name.to_owned(),
            about: text(&self.follow(header)["description"]),
        });
        Response {
            status: status.to_owned(),
            about: prose(&response["description"]),
            contents: contents.collect(),
            headers: headers.collect(),
        }
    }

    fn schemas(&self) -> Vec<Schema> {
        entries(&self.0["components"]["schemas"])
            .map(|(name, schema)| Schema {
                name: name.to_owned(),
                anchor: schema_anchor(name),
                about: prose(&schema["description"]),
                shape: self.shape(schema),
            })
            .collect()
    }

    fn shape(&self, schema: &'a Value) -> Shape {
        let mut core = self.core(schema);
        // A list is told by what it lists.
        if let Some(item) = core.get("items").filter(|item| item.is_object()) {
            core = self.core(item);
        }
        let choices = Some(choices(core)).filter(|choices| choices.len() > 1).unwrap_or_default();
        Shape {
            kind: self.kind(schema),
            fields: self.fields(core),
            variants: choices.into_iter().map(|choice| self.variant(choice)).collect(),
            facts: self.facts(schema),
        }
    }

    fn variant(&self, schema: &'a Value) -> Variant {
        // A variant with a name is told at its own place.
        let is_named = schema.get("$ref").is_some();
        Variant {
            kind: self.kind(schema),
            about: prose(&schema["description"]),
            fields: if is_named { Vec::new() } else { self.fields(schema) },
            facts: if is_named { Vec::new() } else { self.facts(schema) },
        }
    }

    fn fields(&self, schema: &'a Value) -> Vec<Field> {
        let mut fields = Vec::new();
        self.add_fields(schema, "", 0, &mut fields);
        fields
    }

    /// Adds an object's fields, required ones first, and, with a dotted name, those of objects written inline.
    fn add_fields(&self, schema: &'a Value, prefix: &str, depth: usize, fields: &mut Vec<Field>) {
        let mut object = Object::default();
        self.collect_object(schema, depth, &mut object);
        let is_required = |name: &str| object.required.contains(&name);
        object.properties.sort_by_key(|(name, _)| !is_required(name));
        for (name, property) in object.properties {
            let path = format!("{prefix}{name}");
            fields.push(self.field(path.clone(), property, is_required(name)));
            let (inner, prefix) = match property.get("items") {
                Some(item) => (item, format!("{path}[].")),
                None => (property, format!("{path}.")),
            };
            // What has a name is told at its own place, so this ends even where a schema contains itself.
            if inner["properties"].is_object() {
                self.add_fields(inner, &prefix, depth + 1, fields);
            }
        }
    }

    /// Gathers what the schema and its `allOf` parts say together.
    fn collect_object(&self, schema: &'a Value, depth: usize, object: &mut Object<'a>) {
        if depth > DEPTH_MAX {
            return;
        }
        for part in items(&schema["allOf"]) {
            self.collect_object(self.core(part), depth + 1, object);
        }
        for (name, property) in entries(&schema["properties"]) {
            object.properties.retain(|(known, _)| *known != name);
            object.properties.push((name, property));
        }
        object.required.extend(items(&schema["required"]).filter_map(Value::as_str));
    }

    fn field(&self, name: String, schema: &'a Value, required: bool) -> Field {
        let about = &schema["description"];
        Field {
            name,
            place: String::new(),
            required,
            deprecated: schema["deprecated"] == true,
            kind: self.kind(schema),
            about: prose(if about.is_string() { about } else { &self.core(schema)["description"] }),
            facts: self.facts(schema),
        }
    }

    /// The limits of a value, its own first, else those of the schema that it names.
    fn facts(&self, schema: &'a Value) -> Vec<Fact> {
        const PLAIN: [(&str, &str, &str); 12] = [
            ("default", "default", ""),
            ("const", "always", ""),
            ("minimum", "at least", ""),
            ("exclusiveMinimum", "above", ""),
            ("maximum", "at most", ""),
            ("exclusiveMaximum", "below", ""),
            ("minLength", "at least", " characters"),
            ("maxLength", "at most", " characters"),
            ("minItems", "at least", " items"),
            ("maxItems", "at most", " items"),
            ("pattern", "pattern", ""),
            ("example", "example", ""),
        ];
        let core = self.core(schema);
        let get = |key: &str| schema.get(key).or_else(|| core.get(key));
        let mut facts = Vec::new();
        if let Some(values) = get("enum") {
            let values: Vec<String> = items(values).map(bare).collect();
            facts.push(Fact { label: if values.len() == 1 { "always" } else { "one of" }, values, unit: "" });
        }
        // The example of an object is shown with a body, not in a line.
        for (key, label, unit) in PLAIN {
            if let Some(value) = get(key).filter(|value| !value.is_object()) {
                facts.push(Fact { unit, ..Fact::new(label, value) });
            }
        }
        if let Some(value) = schema["examples"].get(0).filter(|value| !value.is_object()) {
            facts.push(Fact::new("example", value));
        }
        facts
    }

    fn kind(&self, schema: &Value) -> Kind {
        let mut kind = Vec::new();
        self.add_kind(schema, 0, &mut kind);
        kind
    }

    fn add_kind(&self, schema: &Value, depth: usize, kind: &mut Kind) {
        if depth > DEPTH_MAX {
            return kind.push(KindPart::word("…"));
        }
        if let Some(target) = schema["$ref"].as_str() {
            return kind.push(self.named_kind(target));
        }
        let parts = |key: &str| items(&schema[key]).collect::<Vec<_>>();
        let (parts, between) = match (parts("allOf"), [parts("oneOf"), parts("anyOf")].concat()) {
            // Only parts with a name tell the reader something.
            (all, _) if all.len() > 1 => {
                (all.into_iter().filter(|part| part.get("$ref").is_some()).collect(), " and ")
            }
            (all, any) => ([all, any].concat(), " or "),
        };
        let is_choice_of_objects =
            choices(schema).len() > 1 && choices(schema).iter().all(|one| has_fields(one));
        if parts.is_empty() || is_choice_of_objects {
            return self.add_plain_kind(schema, depth, kind);
        }
        for (at, part) in parts.into_iter().enumerate() {
            if at > 0 {
                kind.push(KindPart::word(between));
            }
            self.add_kind(part, depth + 1, kind);
        }
    }

    fn add_plain_kind(&self, schema: &Value, depth: usize, kind: &mut Kind) {
        let names: Vec<&str> = match &schema["type"] {
            Value::String(name) => vec![name],
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            _ if has_fields(schema) || !choices(schema).is_empty() => vec!["object"],
            _ => vec!["any"],
        };
        for (at, name) in names.into_iter().enumerate() {
            if at > 0 {
                kind.push(KindPart::word(" or "));
            }
            let (word, of) = match name {
                "array" => ("array of ", &schema["items"]),
                "object" => ("map of ", &schema["additionalProperties"]),
                _ => ("", &Value::Null),
            };
            if of.is_object() {
                kind.push(KindPart::word(word));
                self.add_kind(of, depth + 1, kind);
                continue;
            }
            kind.push(match schema["format"].as_str() {
                Some(format) if name == "string" => KindPart::word(&format!("string ({format})")),
                _ => KindPart::word(name),
            });
        }
    }

    fn named_kind(&self, target: &str) -> KindPart {
        let name = target.rsplit('/').next().unwrap_or(target);
        let is_known = target.starts_with(SCHEMA_PREFIX) && self.0["components"]["schemas"][name].is_object();
        KindPart { text: name.to_owned(), anchor: is_known.then(|| schema_anchor(name)) }
    }

    /// The schema behind names, around "or null", and inside an `allOf` of one.
    fn core(&self, schema: &'a Value) -> &'a Value {
        let mut core = schema;
        for _ in 0..DEPTH_MAX {
            core = match (choices(core).as_slice(), items(&core["allOf"]).collect::<Vec<_>>().as_slice()) {
                _ if core.get("$ref").is_some() => self.follow(core),
                _ if core["properties"].is_object() => return core,
                ([one], _) | ([], [one]) => one,
                _ => return core,
            };
        }
        core
    }

    /// Follows `$ref` inside the document; `null` when it leads nowhere.
    fn follow(&self, value: &'a Value) -> &'a Value {
        let mut value = value;
        for _ in 0..DEPTH_MAX {
            let Some(target) = value["$ref"].as_str() else { return value };
            value =
                target.strip_prefix('#').and_then(|pointer| self.0.pointer(pointer)).unwrap_or(&Value::Null);
        }
        &Value::Null
    }
}

impl KindPart {
    fn word(text: &str) -> Self {
        Self { text: text.to_owned(), anchor: None }
    }
}

impl Fact {
    fn new(label: &'static str, value: &Value) -> Self {
        Self { label, values: vec![bare(value)], unit: "" }
    }
}

impl Group {
    fn new(name: String, about: Vec<Block>) -> Self {
        Self { anchor: format!("tag-{}", anchor(&name)), name, about, operations: Vec::new() }
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A value as people write it: text without its quotes, all else as JSON.
fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What a value may be, apart from null.
fn choices(schema: &Value) -> Vec<&Value> {
    items(&schema["oneOf"]).chain(items(&schema["anyOf"])).filter(|choice| choice["type"] != "null").collect()
}

/// Whether a schema without a name of its own is an object's.
fn has_fields(schema: &Value) -> bool {
    schema["type"] == "object" || schema["properties"].is_object() || items(&schema["allOf"]).next().is_some()
}

fn schema_anchor(name: &str) -> String {
    format!("schema-{}", anchor(name))
}

/// Letters and digits stay, whatever lies between becomes one hyphen.
fn anchor(name: &str) -> String {
    let words: Vec<&str> =
        name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("-")
}

fn is_safe_href(url: &str) -> bool {
    ["https://", "http://", "/", "#"].iter().any(|start| url.starts_with(start))
}

// ---- Markdown, as much of it as doc comments use ----

fn prose(value: &Value) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = value.as_str().unwrap_or_default().lines();
    // Lines of the paragraph or list item that is being read.
    let mut open: Option<(bool, String)> = None;
    while let Some(line) = lines.next() {
        let line = line.trim();
        let item = line.strip_prefix("- ").or_else(|| line.strip_prefix("* "));
        if line.starts_with("```") {
            close(open.take(), &mut blocks);
            let code: Vec<&str> =
                lines.by_ref().take_while(|line| !line.trim_start().starts_with("```")).collect();
            blocks.push(Block::Code(code.join("\n")));
        } else if line.is_empty() {
            close(open.take(), &mut blocks);
        } else if let Some(item) = item {
            close(open.replace((true, item.to_owned())), &mut blocks);
        } else if let Some((_, text)) = &mut open {
            text.push(' ');
            text.push_str(line);
        } else {
            open = Some((false, line.trim_start_matches('#').trim_start().to_owned()));
        }
    }
    close(open, &mut blocks);
    blocks
}

fn close(open: Option<(bool, String)>, blocks: &mut Vec<Block>) {
    match (open, blocks.last_mut()) {
        (Some((true, text)), Some(Block::List(list))) => list.push(spans(&text)),
        (Some((true, text)), _) => blocks.push(Block::List(vec![spans(&text)])),
        (Some((false, text)), _) => blocks.push(Block::Paragraph(spans(&text))),
        (None, _) => {}
    }
}

fn spans(line: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut plain = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(['`', '[']) {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some((span, after)) = code(rest).or_else(|| link(rest)) else {
            plain.push_str(&rest[..1]);
            rest = &rest[1..];
            continue;
        };
        if !plain.is_empty() {
            spans.push(Span::Text(std::mem::take(&mut plain)));
        }
        spans.push(span);
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        spans.push(Span::Text(plain));
    }
    spans
}

fn code(text: &str) -> Option<(Span, &str)> {
    let (code, after) = text.strip_prefix('`')?.split_once('`')?;
    Some((Span::Code(code.to_owned()), after))
}

fn link(text: &str) -> Option<(Span, &str)> {
    let (label, after) = text.strip_prefix('[')?.split_once("](")?;
    let (href, after) = after.split_once(')')?;
    let is_link = is_safe_href(href) && !label.contains(['[', ']']);
    is_link.then(|| (Span::Link(Link { text: label.to_owned(), href: href.to_owned() }), after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Value {
        json!({
            "openapi": "3.1.0",
            "info": { "title": "Sample", "version": "1" },
            "tags": [{ "name": "links", "description": "Short links." }],
            "paths": {
                "/api/v1/urls": {
                    "get": { "tags": ["links"], "summary": "List links.", "responses": {} },
                    "post": {
                        "tags": ["links"],
                        "summary": "Create a link",
                        "security": [{}, { "api_key": ["links:write"] }],
                        "requestBody": {
                            "required": true,
                            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/NewLink" } } },
                        },
                        "responses": {
                            "201": {
                                "description": "Made.",
                                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Link" } } },
                            },
                            "409": { "$ref": "#/components/responses/Taken" },
                        },
                    },
                },
                "/api/v1/urls/{code}": {
                    "parameters": [{ "name": "code", "in": "path", "required": true, "schema": { "type": "string" } }],
                    "delete": { "responses": { "204": { "description": "Deleted." } } },
                },
            },
            "components": {
                "responses": { "Taken": { "description": "The alias is taken." } },
                "schemas": {
                    "NewLink": {
                        "allOf": [
                            { "$ref": "#/components/schemas/Settings" },
                            {
                                "type": "object",
                                "required": ["long_url"],
                                "properties": { "long_url": { "type": "string", "maxLength": 2048 } },
                            },
                        ],
                    },
                    "Settings": {
                        "type": "object",
                        "properties": {
                            "status": { "oneOf": [{ "type": "null" }, { "$ref": "#/components/schemas/Status" }] },
                            "utm": { "type": "object", "properties": { "source": { "type": ["string", "null"] } } },
                        },
                    },
                    "Status": { "type": "string", "enum": ["permanent", "temporary"], "description": "The HTTP status." },
                    "Link": {
                        "type": "object",
                        "properties": { "copies": { "type": "array", "items": { "$ref": "#/components/schemas/Link" } } },
                    },
                },
            },
        })
    }

    #[test]
    fn docs_list_every_operation() {
        let page = docs(&sample());
        for anchor in ["get-api-v1-urls", "post-api-v1-urls", "delete-api-v1-urls-code"] {
            assert!(page.contains(&format!("<a href=\"#{anchor}\">")), "{anchor} is in the contents");
            assert!(page.contains(&format!("<article id=\"{anchor}\"")), "{anchor} is told");
        }
        assert!(page.contains("Works without a key; a key needs the scope links:write."));
        assert!(page.contains("The alias is taken."), "a named response is followed");
        assert!(page.contains(r##"<a href="#schema-Link">Link</a>"##));
        assert!(page.contains(r#"<article id="schema-Link""#));
    }

    #[test]
    fn body_fields_follow_names_and_all_of() {
        let sample = sample();
        let shape = Document(&sample).shape(&sample["components"]["schemas"]["NewLink"]);
        let names: Vec<&str> = shape.fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["long_url", "status", "utm", "utm.source"]);
        let [long_url, status, _, source] = shape.fields.as_slice() else { panic!("four fields") };
        let words = |field: &Field| field.kind.iter().map(|part| part.text.as_str()).collect::<String>();
        assert_eq!(words(status), "null or Status");
        assert_eq!(status.about, [Block::Paragraph(vec![Span::Text("The HTTP status.".into())])]);
        assert_eq!(words(source), "string or null");
        assert!(long_url.required && !status.required);
    }

    #[test]
    fn odd_documents_still_make_a_page() {
        let mut looped = sample();
        looped["components"]["schemas"]["Link"] = json!({ "$ref": "#/components/schemas/Link" });
        looped["components"]["schemas"]["Status"] =
            json!({ "allOf": [{ "$ref": "#/components/schemas/Status" }, {}] });
        let itself = json!({ "$ref": "#/components/schemas/Tree" });
        looped["components"]["schemas"]["Tree"] = json!({
            "allOf": [itself, itself],
            "oneOf": [itself, itself, itself],
            "properties": { "a": { "allOf": [itself] }, "b": { "anyOf": [itself, itself] } },
        });
        looped["paths"]["/api/v1/urls"]["post"]["parameters"] =
            json!([7, { "$ref": "#/nowhere" }, { "$ref": 3 }]);
        for document in
            [looped, json!([]), json!({ "paths": [1], "tags": 3, "components": { "schemas": [] } })]
        {
            assert!(docs(&document).contains("</html>"));
        }
    }

    #[test]
    fn doc_comments_become_blocks() {
        let text = |text: &str| Span::Text(text.into());
        let link = Span::Link(Link { text: "RFC".into(), href: "https://rfc.example".into() });
        let blocks = prose(&json!(
            "Two\nlines, `a < b`.\n\n- one [RFC](https://rfc.example)\n- [x](javascript:1)\n```\nx\n```"
        ));
        assert_eq!(
            blocks,
            [
                Block::Paragraph(vec![text("Two lines, "), Span::Code("a < b".into()), text(".")]),
                Block::List(vec![vec![text("one "), link], vec![text("[x](javascript:1)")]]),
                Block::Code("x".into()),
            ]
        );
    }
}
